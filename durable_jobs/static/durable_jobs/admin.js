/* What the pages do more with JavaScript. Without it all of them work. */
(function () {
  "use strict";

  function each(selector, work, root) {
    Array.prototype.forEach.call((root || document).querySelectorAll(selector), work);
  }

  // Copying: every payload gets a button

  function copyable(root) {
    if (!navigator.clipboard) return;
    each(".durable-payload:not([data-durable-copyable])", function (text) {
      text.dataset.durableCopyable = "";
      var button = document.createElement("button");
      button.type = "button";
      button.className = "durable-copy";
      button.textContent = word("copy");
      button.addEventListener("click", function () {
        navigator.clipboard.writeText(text.textContent).then(function () {
          button.textContent = word("copied");
          setTimeout(function () { button.textContent = word("copy"); }, 1500);
        });
      });
      var around = document.createElement("div");
      around.className = "durable-copyable";
      text.before(around);
      around.append(text, button);
    }, root);
  }

  // Short ids: each gets a button that copies the whole id

  function copyableIds(root) {
    if (!navigator.clipboard) return;
    each(".durable-id[title]:not([data-durable-copyable])", function (id) {
      id.dataset.durableCopyable = "";
      var button = document.createElement("button");
      button.type = "button";
      button.className = "durable-copy-id";
      button.title = word("copyId");
      button.setAttribute("aria-label", word("copyId") + " " + id.title);
      button.addEventListener("click", function () {
        navigator.clipboard.writeText(id.title).then(function () {
          button.dataset.copied = "";
          button.title = word("copied");
          setTimeout(function () {
            delete button.dataset.copied;
            button.title = word("copyId");
          }, 1500);
        });
      });
      (id.closest("a") || id).after(button);
    }, root);
  }

  function word(name) {
    var words = document.getElementById("durable-words");
    return words ? words.dataset[name] : name;
  }

  // Steps: a click on one opens it in its place

  function opened(link) {
    return link.closest("tbody").querySelector(".durable-panel > td > div");
  }

  function markOpen() {
    each("[data-durable-panel]", function (link) {
      var panel = opened(link);
      link.setAttribute("aria-expanded", panel.childElementCount ? "true" : "false");
      link.setAttribute("aria-controls", panel.id);
    });
  }

  function toggle(link) {
    var panel = opened(link);
    if (panel.childElementCount) {
      panel.replaceChildren();
      markOpen();
    } else {
      window.htmx.ajax("GET", link.href, {
        source: link, target: panel, select: ".durable-one > *", swap: "innerHTML"
      });
    }
  }

  document.addEventListener("click", function (event) {
    var link = event.target.closest("[data-durable-panel]");
    if (!link || !window.htmx || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    toggle(link);
  });

  function linked() {
    var place = location.hash && document.getElementById(location.hash.slice(1));
    if (!place && document.getElementById("durable-axis")) return notDrawn();
    var link = place && place.querySelector("[data-durable-panel]");
    if (link && window.htmx && !opened(link).childElementCount) toggle(link);
  }

  // A link to a step that is not drawn: the server draws it when it is named
  function notDrawn() {
    var step = /^#step-([0-9a-f]{40})$/.exec(location.hash);
    var query = step && "?step=" + step[1];
    if (query && location.search !== query) location.replace(query + location.hash);
  }

  // The timeline: a part of the time that is dragged over fills the whole

  var zoom = null; // [from, to] in seconds from the start of the run

  function percent(value) { return value.toFixed(3) + "%"; }

  function axis() { return document.getElementById("durable-axis"); }

  function range() {
    return zoom || [Number(axis().dataset.began), Number(axis().dataset.until)];
  }

  function place(seconds) {
    var shown = range();
    return (seconds - shown[0]) * 100 / (shown[1] - shown[0]);
  }

  function redraw() {
    if (!axis()) return;
    each(".durable-timeline rect[data-from]", function (bar) {
      var from = place(Number(bar.dataset.from));
      var to = place(Number(bar.dataset.to || axis().dataset.until));
      var first = Math.max(from, 0), last = Math.min(to, 100);
      bar.setAttribute("x", percent(Math.min(first, 99.4)));
      bar.setAttribute("width", percent(Math.max(last - first, 0)));
      var least = bar.previousElementSibling;
      least.setAttribute("x", percent(Math.min(first, 99.4)));
      var seen = !zoom || (to >= 0 && from <= 100);
      bar.parentNode.setAttribute("visibility", seen ? "visible" : "hidden");
    });
    each("#durable-axis text", function (mark) {
      mark.setAttribute("x", percent(place(Number(mark.dataset.at))));
    });
    each("#durable-grid line", function (line) {
      var x = percent(place(Number(line.dataset.at)));
      line.setAttribute("x1", x);
      line.setAttribute("x2", x);
    });
    each(".durable-unzoom", function (button) { button.hidden = !zoom; });
  }

  // Open steps: the time until now, between two changes as well

  var clock = { axis: null, at: 0 };

  function length(seconds) {
    if (seconds < 1) return Number((seconds * 1000).toPrecision(3)) + " ms";
    if (seconds < 59.95) return Number(seconds.toPrecision(3)) + " s";
    var whole = Math.round(seconds);
    var unit = [[86400, "d", 3600, "h"], [3600, "h", 60, "m"], [60, "m", 1, "s"]].find(
      function (one) { return whole >= one[0]; }
    );
    var rest = String(Math.floor(whole % unit[0] / unit[2])).padStart(2, "0");
    return Math.floor(whole / unit[0]) + " " + unit[1] + " " + rest + " " + unit[3];
  }

  function tick() {
    if (!axis() || !document.getElementById("durable-poll")) return;
    if (clock.axis !== axis()) clock = { axis: axis(), at: performance.now() };
    var now = Number(axis().dataset.until) + (performance.now() - clock.at) / 1000;
    each(".durable-timeline [data-since]", function (cell) {
      cell.textContent = length(Math.max(now - Number(cell.dataset.since), 0));
    });
  }

  var from = null;

  function at(event, head) {
    var box = head.getBoundingClientRect();
    var share = Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
    return range()[0] + share * (range()[1] - range()[0]);
  }

  document.addEventListener("pointerdown", function (event) {
    var head = event.target.closest(".durable-timeline .durable-track");
    if (!head || event.button) return;
    from = { head: head, at: at(event, head), x: event.clientX };
  });

  document.addEventListener("pointerup", function (event) {
    if (!from) return;
    var to = at(event, from.head), moved = Math.abs(event.clientX - from.x) > 6;
    if (moved && Math.abs(to - from.at) > 1e-6) {
      zoom = [Math.min(from.at, to), Math.max(from.at, to)];
      redraw();
    }
    from = null;
  });

  document.addEventListener("click", function (event) {
    if (event.target.closest(".durable-unzoom")) { zoom = null; redraw(); }
  });

  // Keys: / searches, j and k move through rows, Enter opens one, ? tells the keys

  function rows() {
    return Array.from(document.querySelectorAll(
      "#result_list tbody tr, .durable-rows tbody tr, .durable-timeline tbody > tr:first-child"
    ));
  }

  function move(by) {
    var all = rows();
    if (!all.length) return;
    var now = all.findIndex(function (row) { return row.classList.contains("durable-at"); });
    var next = Math.min(Math.max(now + by, 0), all.length - 1);
    if (now >= 0) all[now].classList.remove("durable-at");
    all[next].classList.add("durable-at");
    all[next].scrollIntoView({ block: "nearest" });
    var link = all[next].querySelector("a");
    if (link) link.focus({ preventScroll: true });
  }

  function keys() {
    var dialog = document.getElementById("durable-keys");
    if (!dialog || !dialog.showModal) return;
    if (dialog.open) dialog.close(); else dialog.showModal();
  }

  document.addEventListener("keydown", function (event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input, textarea, select, [contenteditable]")) return;
    var search = document.querySelector("[data-durable-search], #searchbar");
    if (event.key === "/" && search) { event.preventDefault(); search.focus(); }
    else if (event.key === "j") move(1);
    else if (event.key === "k") move(-1);
    else if (event.key === "?") keys();
  });

  // Live parts: a hidden tab does not poll, and what is open or focused stays so

  var focused = null, unfolded = [], due = false;

  document.addEventListener("htmx:configRequest", function (event) {
    if (event.target.id !== "durable-poll") return;
    event.detail.parameters.rows = Array.from(
      document.querySelectorAll("[data-durable-row]"),
      function (row) { return row.dataset.durableRow; }
    ).join("~");
  });

  document.addEventListener("htmx:beforeRequest", function (event) {
    if (document.hidden && event.target.matches("[data-durable-live]")) event.preventDefault();
  });

  document.addEventListener("htmx:beforeSwap", function (event) {
    if (event.detail.xhr.status === 286) event.detail.shouldSwap = true;
    var link = document.activeElement, around = link && link.closest("#durable-live [id]");
    focused = around && { href: link.getAttribute("href"), around: around.id };
    unfolded = Array.from(
      document.querySelectorAll("#durable-live details[id][open]"),
      function (one) { return one.id; }
    );
  });

  // htmx focuses an element with the same id again, and this a link with the same address
  function refocus() {
    var around = focused && document.getElementById(focused.around);
    if (!around || document.activeElement !== document.body) return;
    var link = Array.from(around.querySelectorAll("a")).find(
      function (one) { return one.getAttribute("href") === focused.href; }
    );
    if (link) link.focus({ preventScroll: true });
  }

  function unfold() {
    unfolded.forEach(function (id) {
      var details = document.getElementById(id);
      if (details) details.open = true;
    });
  }

  function settled() {
    due = false;
    redraw();
    tick();
    markOpen();
    copyable();
    copyableIds();
    unfold();
    refocus();
  }

  document.addEventListener("htmx:afterSettle", function () {
    if (!due) requestAnimationFrame(settled);
    due = true;
  });

  document.addEventListener("htmx:afterRequest", function (event) {
    if (event.target.id === "durable-poll") tick();
  });

  document.addEventListener("DOMContentLoaded", function () {
    copyable();
    copyableIds();
    markOpen();
    tick();
    linked();
  });
  window.addEventListener("hashchange", linked);
})();
