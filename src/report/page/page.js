// What makes the page easier to go through. Without it everything is there, one after the other.
(() => {
  "use strict";
  const root = document.documentElement;
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const layer = (element) => element && element.closest("[data-layer]");

  // The chosen layer, beside or beneath the rest.
  const aside = document.getElementById("each");
  const close = document.createElement("button");
  close.type = "button";
  close.className = "close";
  close.textContent = "Close";
  aside.prepend(close);
  const views = new Map();
  for (const element of all("main [data-layer]")) {
    const place = element.dataset.layer;
    views.set(place, [...(views.get(place) || []), element]);
  }
  const edges = all(".graph .edge");
  let opener = null;

  const choose = (place, focus) => {
    const article = document.getElementById(`layer-${place}`);
    all(".chosen, .near").forEach((element) => element.classList.remove("chosen", "near"));
    aside.classList.toggle("open", !!article);
    root.classList.toggle("choosing", !!article);
    if (!article) return;
    article.classList.add("chosen");
    (views.get(place) || []).forEach((element) => element.classList.add("chosen"));
    const row = document.querySelector(`[data-row="${place}"]`);
    if (row) row.classList.add("chosen");
    for (const edge of edges) {
      if (edge.dataset.from === place || edge.dataset.to === place) edge.classList.add("near");
    }
    aside.scrollTop = 0;
    if (focus) article.querySelector("h3").focus({ preventScroll: true });
  };
  const chosen = () => (/^#layer-(\d+)$/.exec(location.hash) || [])[1];
  const leave = () => {
    history.replaceState(null, "", location.pathname + location.search);
    choose(null, false);
    if (opener && opener.isConnected) opener.focus({ preventScroll: true });
    opener = null;
  };
  close.addEventListener("click", leave);
  document.addEventListener("click", (event) => {
    const link = layer(event.target);
    if (!link || !link.hasAttribute("href") || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    event.preventDefault();
    if (!aside.contains(link)) opener = link;
    history.replaceState(null, "", `#layer-${link.dataset.layer}`);
    choose(link.dataset.layer, true);
  });
  addEventListener("hashchange", () => chosen() !== undefined && choose(chosen(), true));
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && aside.classList.contains("open")) leave();
  });

  // One stop of the tab key for each picture and for the table; arrows go on from there.
  const isSeen = (element) => element.getClientRects().length > 0 && !element.classList.contains("dim");
  const middle = (element) => {
    const box = element.getBoundingClientRect();
    return [box.left + box.width / 2, box.top + box.height / 2];
  };
  const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const nearest = (from, links, [dx, dy]) => {
    const [x, y] = middle(from);
    let best = null;
    let least = Infinity;
    for (const link of links) {
      if (link === from || !isSeen(link)) continue;
      const [px, py] = middle(link);
      const along = (px - x) * dx + (py - y) * dy;
      const across = Math.abs((px - x) * dy) + Math.abs((py - y) * dx);
      if (along > 1 && along + 3 * across < least) {
        best = link;
        least = along + 3 * across;
      }
    }
    return best;
  };
  for (const group of all("[data-roving]")) {
    const links = all("a[data-layer][href]", group);
    const stop = (link) => {
      links.forEach((other) => other.setAttribute("tabindex", other === link ? "0" : "-1"));
    };
    stop(links[0]);
    group.addEventListener("focusin", (event) => links.includes(event.target) && stop(event.target));
    group.addEventListener("keydown", (event) => {
      const from = layer(event.target);
      if (!from || event.altKey || event.ctrlKey || event.metaKey) return;
      let next = null;
      if (event.key === "Home") next = links.find(isSeen);
      else if (event.key === "End") next = links.findLast(isSeen);
      else if (ways[event.key]) next = nearest(from, all("a[data-layer][href]", group), ways[event.key]);
      if (!next) return;
      event.preventDefault();
      next.focus({ preventScroll: true });
      next.scrollIntoView({ block: "nearest", inline: "nearest", behavior: "instant" });
    });
  }
  const graph = document.querySelector("#graph .scroll");
  graph.removeAttribute("tabindex");
  // A wide fan has its root halfway down.
  const first = graph.querySelector("a");
  if (first) graph.scrollTop = first.getBoundingClientRect().top - graph.getBoundingClientRect().top - graph.clientHeight / 2;

  // The table: sorted and filtered.
  const body = document.querySelector("#layers tbody");
  const rows = [...body.rows];
  const value = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value);
  };
  all("#layers thead th").forEach((head, column, heads) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const numbers = rows.some((row) => row.cells[column].dataset.value !== undefined);
      const was = head.getAttribute("aria-sort");
      const up = was ? was === "descending" : !numbers;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const order = (one, other) => (one < other ? -1 : one > other ? 1 : 0) * (up ? 1 : -1);
      body.append(...[...rows].sort((one, other) => order(value(one, column), value(other, column))));
    });
  });
  const form = document.querySelector(".filters");
  form.hidden = false;
  const search = form.querySelector("input[type=search]");
  const told = form.querySelector("output");
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const statuses = new Set(all("input:checked", form).map((box) => box.value));
    let count = 0;
    rows.forEach((row, at) => {
      const fits = statuses.has(row.dataset.status) && words.every((word) => texts[at].includes(word));
      row.hidden = !fits;
      count += fits;
      for (const element of views.get(row.dataset.row) || []) element.classList.toggle("dim", !fits);
    });
    told.textContent = count === rows.length ? "" : `${count} of ${rows.length} layers`;
  };
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  // What a reload has kept of the form.
  if (search.value || form.querySelector("input[type=checkbox]:not(:checked)")) filter();

  if (chosen() !== undefined) choose(chosen(), false);
})();
