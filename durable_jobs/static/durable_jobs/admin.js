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
    return document.getElementById(link.dataset.durablePanel);
  }

  function told(root) {
    each("[data-durable-panel]", function (link) {
      var panel = opened(link);
      link.setAttribute("aria-expanded", panel && panel.childElementCount ? "true" : "false");
    }, root);
  }

  function toggle(link) {
    var panel = opened(link);
    if (panel.childElementCount) {
      panel.replaceChildren();
      told();
    } else {
      window.htmx.trigger(link, "open");
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
    var link = place && place.querySelector("[data-durable-panel]");
    if (link && window.htmx && !opened(link).childElementCount) toggle(link);
  }

  // The timeline: a part of the time that is dragged over fills the whole

  var zoom = null; // [from, to] of the whole, in percent

  function percent(value) { return value.toFixed(3) + "%"; }

  function place(value) {
    return zoom ? (value - zoom[0]) * 100 / (zoom[1] - zoom[0]) : value;
  }

  function kept(node, name) {
    var key = "durable" + name;
    if (!(key in node.dataset)) node.dataset[key] = parseFloat(node.getAttribute(name));
    return Number(node.dataset[key]);
  }

  function redraw() {
    each(".durable-timeline rect[data-bar]", function (bar) {
      var from = kept(bar, "x"), to = from + kept(bar, "width");
      var first = Math.max(place(from), 0), last = Math.min(place(to), 100);
      bar.setAttribute("x", percent(Math.min(first, 99.4)));
      bar.setAttribute("width", percent(Math.max(last - first, 0)));
      var least = bar.previousElementSibling;
      least.setAttribute("x", percent(Math.min(first, 99.4)));
      var seen = place(to) >= 0 && place(from) <= 100;
      bar.parentNode.setAttribute("visibility", seen ? "visible" : "hidden");
    });
    each(".durable-timeline text", function (mark) {
      mark.setAttribute("x", percent(place(kept(mark, "x"))));
    });
    each("#durable-grid line", function (line) {
      var x = percent(place(kept(line, "x1")));
      line.setAttribute("x1", x);
      line.setAttribute("x2", x);
    });
    each(".durable-unzoom", function (button) { button.hidden = !zoom; });
  }

  var from = null;

  function at(event, head) {
    var box = head.getBoundingClientRect();
    var share = Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1) * 100;
    return zoom ? zoom[0] + share * (zoom[1] - zoom[0]) / 100 : share;
  }

  document.addEventListener("pointerdown", function (event) {
    var head = event.target.closest(".durable-timeline .durable-track");
    if (!head || event.button) return;
    from = { head: head, at: at(event, head), x: event.clientX };
  });

  document.addEventListener("pointerup", function (event) {
    if (!from) return;
    var to = at(event, from.head), moved = Math.abs(event.clientX - from.x) > 6;
    if (moved && Math.abs(to - from.at) > 0.01) {
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

  // Live parts: nobody asks while nobody looks, and what was open stays so

  document.addEventListener("htmx:beforeRequest", function (event) {
    if (document.hidden && event.target.matches("[data-durable-live]")) event.preventDefault();
  });

  document.addEventListener("htmx:beforeSwap", function (event) {
    if (event.detail.xhr.status === 286) event.detail.shouldSwap = true;
  });

  document.addEventListener("htmx:afterSettle", function () {
    if (zoom) redraw();
    told();
    copyable();
    copyableIds();
  });

  document.addEventListener("DOMContentLoaded", function () {
    copyable();
    copyableIds();
    linked();
  });
  window.addEventListener("hashchange", linked);
})();
