const fs = require("fs");
fs.cpSync("public", "dist/public", { recursive: true });
const source = fs.readFileSync("src/server.js", "utf8");
fs.writeFileSync("dist/server.js", source.replace("MODE", JSON.stringify(process.env.NODE_ENV)));
fs.symlinkSync("server.js", "dist/index.js");
fs.chmodSync("dist/server.js", 0o600);
