"use strict";
(function () {
  var all = function (what, where) { return Array.from((where || document).querySelectorAll(what)); };
  var text = function (node) { return node.textContent.trim(); };

  // Theme: as the system, unless somebody has chosen.
  var theme = document.getElementById("theme"), root = document.documentElement;
  theme.value = root.dataset.theme || "";
  theme.addEventListener("change", function () {
    if (theme.value) { root.dataset.theme = theme.value; } else { delete root.dataset.theme; }
    try { localStorage.setItem("isoform-theme", theme.value); } catch (none) { /* it holds for this visit */ }
  });

  // Filter: what carries a spec, an operation or an implementation is shown if they are the chosen ones; a row also by its text.
  var form = document.getElementById("filter");
  if (form) {
    var marked = all("main [data-k]").map(function (node) { return [node, node.dataset.k.split("|")]; });
    var rows = all("#speed tbody tr"), shown = document.getElementById("shown"), word = document.getElementById("f-text");
    var words = new Map();
    var apply = function () {
      var chosen = all("select", form).map(function (one) { return one.value; });
      var wanted = word.value.trim().toLowerCase();
      marked.forEach(function (pair) {
        var node = pair[0], fits = chosen.every(function (one, k) { return !one || !pair[1][k] || pair[1][k] === one; });
        if (fits && wanted && node.matches(".rows tr, details.cell")) {
          if (!words.has(node)) { words.set(node, (node.matches("details") ? text(node.querySelector("summary")) : text(node)).toLowerCase()); }
          fits = words.get(node).includes(wanted);
        }
        node.hidden = !fits;
      });
      var left = rows.filter(function (row) { return !row.hidden; }).length;
      shown.textContent = left + " of " + rows.length + " cells shown";
    };
    var clear = function () { all("select, input", form).forEach(function (one) { one.value = ""; }); };
    form.addEventListener("input", apply);
    form.addEventListener("submit", function (event) { event.preventDefault(); });
    form.addEventListener("reset", function (event) { event.preventDefault(); clear(); apply(); });
    apply();
  }

  // Sort: by any column, numbers by their value, what is missing last.
  var value = function (row, k) {
    var cell = row.cells[k], number = cell && cell.dataset.v;
    return number !== undefined ? Number(number) : cell && cell.classList.contains("n") ? null : cell ? text(cell) : null;
  };
  var order = function (a, b) {
    return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
  };
  all("table.sortable").forEach(function (table) {
    var heads = all("thead th", table), body = table.tBodies[0];
    heads.forEach(function (head, k) {
      var button = document.createElement("button");
      button.type = "button";
      button.textContent = text(head);
      head.replaceChildren(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", function () {
        var sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
        heads.forEach(function (other) { other.setAttribute("aria-sort", "none"); });
        head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
        var keyed = Array.from(body.rows).map(function (row) { return [value(row, k), row]; });
        keyed.sort(function (a, b) {
          var none = function (one) { return one[0] === null || one[0] === ""; };
          return none(a) || none(b) ? none(a) - none(b) : sign * order(a[0], b[0]);
        });
        body.append.apply(body, keyed.map(function (pair) { return pair[1]; }));
      });
    });
  });

  // A link into something folded opens it, and the keyboard goes on from there.
  var open = function () {
    var target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) { return; }
    for (var node = target; node; node = node.parentElement) {
      if (node.tagName === "DETAILS") { node.open = true; node.hidden = false; }
    }
    target.scrollIntoView();
    if (target.hasAttribute("tabindex") && !target.contains(document.activeElement)) { target.focus({ preventScroll: true }); }
  };
  addEventListener("hashchange", open);
  document.addEventListener("click", function (event) {  // the same link once more
    var link = event.target.closest && event.target.closest("a[href^='#']");
    if (link && link.getAttribute("href") === location.hash) { open(); }
  });
  open();

  // Copy a command.
  all("#cells pre.command").forEach(function (pre) {
    var button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    button.textContent = "Copy the command";
    button.addEventListener("click", function () {
      var done = function () { button.textContent = "Copied"; setTimeout(function () { button.textContent = "Copy the command"; }, 1500); };
      var by_hand = function () { getSelection().selectAllChildren(pre); };
      if (navigator.clipboard) { navigator.clipboard.writeText(text(pre)).then(done, by_hand); } else { by_hand(); }
    });
    pre.after(button);
  });

  // Where in the contents the reader is.
  var links = new Map(all(".contents a").map(function (link) { return [link.getAttribute("href").slice(1), link]; }));
  if ("IntersectionObserver" in window) {
    var watch = new IntersectionObserver(function (entries) {
      entries.forEach(function (entry) {
        if (!entry.isIntersecting) { return; }
        links.forEach(function (link) { link.removeAttribute("aria-current"); });
        links.get(entry.target.id).setAttribute("aria-current", "true");
      });
    }, { rootMargin: "-15% 0px -80% 0px" });
    all("main > section").forEach(function (section) { if (links.has(section.id)) { watch.observe(section); } });
  }
  if (matchMedia("(max-width: 62rem)").matches) { document.querySelector(".contents details").open = false; }

  // On paper everything is unfolded.
  var folded = [];
  addEventListener("beforeprint", function () {
    folded = all("details:not([open])");
    folded.forEach(function (one) { one.open = true; });
  });
  addEventListener("afterprint", function () { folded.forEach(function (one) { one.open = false; }); });
})();
