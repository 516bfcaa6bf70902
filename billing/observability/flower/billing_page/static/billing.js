/* Reads the part of a billing page that changes anew, as the server writes it. Reading is all that it does.
   Not in a tab that nobody sees; and what could not be read anew is said to be old, in words. */
(function () {
  "use strict";

  var live = document.getElementById("billing-live");
  var status = document.getElementById("billing-status");
  if (!live || !status) {
    return;
  }
  var every = 1000 * Number(live.dataset.refreshSeconds);
  var source = live.dataset.source || window.location.href;
  var shown = live.dataset.takenAt ? Date.now() : 0;
  var failures = 0;
  var timer = 0;
  var asking = null;

  function clock(milliseconds) {
    return new Date(milliseconds).toLocaleTimeString();
  }

  function say(state, words) {
    var dot = status.firstElementChild;
    dot.className = "status-dot" + (state ? " status-dot-" + state : "");
    if (status.lastElementChild.textContent !== words) {
      status.lastElementChild.textContent = words;
    }
    status.dataset.state = state;
  }

  function age() {
    return shown ? "What is shown is of " + clock(shown) + "." : "Nothing could be shown yet.";
  }

  /* What the reader has opened, and where the keyboard is, stay so. */
  function replace(fresh) {
    var opened = live.querySelectorAll("details[open]");
    var focused = live.contains(document.activeElement) ? document.activeElement : null;
    var href = focused && focused.getAttribute("href");
    var id = focused && focused.id;
    var open = Array.prototype.map.call(opened, function (each) { return each.id; });
    var scrolled = {};
    live.querySelectorAll(".billing-wide[id]").forEach(function (each) { scrolled[each.id] = each.scrollLeft; });
    var inSummary = focused && focused.tagName === "SUMMARY" ? focused.parentElement.id : "";

    live.replaceChildren.apply(live, Array.prototype.slice.call(fresh.childNodes));

    open.forEach(function (name) {
      var each = name && document.getElementById(name);
      if (each) { each.open = true; }
    });
    Object.keys(scrolled).forEach(function (name) {
      var each = document.getElementById(name);
      if (each) { each.scrollLeft = scrolled[name]; }
    });
    var again = null;
    if (id) {
      again = document.getElementById(id);
    } else if (inSummary) {
      again = document.querySelector("#" + CSS.escape(inSummary) + " > summary");
    } else if (href) {
      again = live.querySelector('a[href="' + CSS.escape(href) + '"]');
    }
    if (again) { again.focus({ preventScroll: true }); }
  }

  function isSelecting() {
    var selection = window.getSelection();
    return selection && !selection.isCollapsed && live.contains(selection.anchorNode);
  }

  function read(answer) {
    if (answer.type === "opaqueredirect" || answer.status === 401) {
      throw new Error("You are signed out: load the page again. ");
    }
    if (!answer.ok) {
      throw new Error("Flower answers with an error (" + answer.status + "). ");
    }
    return answer.text();
  }

  function refresh() {
    window.clearTimeout(timer);
    if (document.hidden || asking) {
      return;
    }
    var stop = new AbortController();
    var bound = window.setTimeout(function () { stop.abort(); }, 20000);
    asking = fetch(source, { cache: "no-store", credentials: "same-origin", redirect: "manual", signal: stop.signal })
      .then(read)
      .then(function (text) {
        var page = new DOMParser().parseFromString(text, "text/html");
        var fresh = page.getElementById("billing-live");
        if (!fresh) {
          throw new Error("Flower answers with another page. ");
        }
        if (!isSelecting()) {
          if (live.innerHTML !== fresh.innerHTML) { replace(fresh); }
          live.dataset.takenAt = fresh.dataset.takenAt;
          shown = Date.now();
        }
        failures = 0;
        say("live", "Read anew every " + every / 1000 + " s");
      })
      .catch(function (error) {
        failures += 1;
        say("error", (error instanceof TypeError || error.name === "AbortError" ? "Flower does not answer. " : error.message) + age());
      })
      .then(function () {
        window.clearTimeout(bound);
        asking = null;
        timer = window.setTimeout(refresh, every * Math.min(1 + failures, 6));
      });
  }

  document.addEventListener("visibilitychange", function () {
    if (document.hidden) {
      window.clearTimeout(timer);
      say("", "Paused: nobody looks. " + age());
    } else {
      refresh();
    }
  });

  if (live.dataset.source) {
    refresh();
  } else {
    say("live", "Read anew every " + every / 1000 + " s");
    timer = window.setTimeout(refresh, every);
  }
}());
