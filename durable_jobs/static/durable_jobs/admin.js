/* What the pages do more with JavaScript. Without it all of them work. */
(function () {
  "use strict";

  // Copying: <button data-durable-copy="id of the element that has the text">

  document.addEventListener("click", function (event) {
    var button = event.target.closest("[data-durable-copy]");
    if (!button) return;
    var from = document.getElementById(button.dataset.durableCopy);
    if (!from || !navigator.clipboard) return;
    navigator.clipboard.writeText(from.value || from.textContent).then(function () {
      var label = button.textContent;
      button.textContent = button.dataset.durableCopied || "✓";
      setTimeout(function () { button.textContent = label; }, 1500);
    });
  });

  // Keys: / searches, j and k move through rows, Enter opens one, ? shows the keys

  function rows() {
    return Array.from(document.querySelectorAll(
      "#result_list tbody tr, .durable-rows tbody tr, .durable-timeline tbody tr:first-child"
    ));
  }

  function move(by) {
    var all = rows();
    if (!all.length) return;
    var at = all.findIndex(function (row) { return row.classList.contains("durable-at"); });
    var next = Math.min(Math.max(at + by, 0), all.length - 1);
    if (at >= 0) all[at].classList.remove("durable-at");
    all[next].classList.add("durable-at");
    all[next].scrollIntoView({ block: "nearest" });
    var link = all[next].querySelector("a");
    if (link) link.focus({ preventScroll: true });
  }

  function help() {
    var dialog = document.getElementById("durable-keys");
    if (dialog && dialog.showModal) dialog.open ? dialog.close() : dialog.showModal();
  }

  document.addEventListener("keydown", function (event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input, textarea, select, [contenteditable]")) return;
    var search = document.querySelector("#searchbar, [data-durable-search]");
    if (event.key === "/" && search) { event.preventDefault(); search.focus(); }
    else if (event.key === "j") move(1);
    else if (event.key === "k") move(-1);
    else if (event.key === "?") help();
  });

  // Polling stops while nobody looks

  document.addEventListener("htmx:beforeRequest", function (event) {
    if (document.hidden && event.target.closest("[data-durable-live]")) event.preventDefault();
  });
})();
