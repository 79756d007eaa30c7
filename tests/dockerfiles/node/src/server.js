const { name, version } = require("../package.json");
console.log(`${name} ${version} ${MODE} on ${process.env.PORT} in ${process.cwd()} ${process.env.NODE_PATH}`);
