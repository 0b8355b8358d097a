// What pages do better with a script: a poll is watched as it ends, boxes are ticked at once, dangerous buttons ask first.
(function () {
  "use strict";

  // Only while it is seen: a browser has few connections to a server, and all its tabs share them.
  function watch(place) {
    if (!window.EventSource) return;
    var source = null;
    function end() { if (source) source.close(); source = null; }
    function begin() {
      end();
      if (document.hidden) return;
      source = new EventSource(place.dataset.watch);
      source.addEventListener("polled", function (event) {
        place.innerHTML = event.data;
        var said = document.getElementById("poll-said");
        if (said) said.textContent = "polled just now";
      });
      source.addEventListener("over", begin);
    }
    begin();
    document.addEventListener("visibilitychange", begin);
    window.addEventListener("pagehide", end);
  }

  document.addEventListener("DOMContentLoaded", function () {
    document.querySelectorAll("[data-watch]").forEach(watch);
    document.querySelectorAll("[data-all]").forEach(function (all) {
      all.hidden = false;
      all.addEventListener("change", function () {
        document.querySelectorAll("input[name=id]").forEach(function (box) { box.checked = all.checked; });
      });
    });
    document.querySelectorAll("[data-copy]").forEach(function (button) {
      button.hidden = false;
      button.addEventListener("click", function () {
        var text = document.getElementById(button.dataset.copy).textContent;
        navigator.clipboard.writeText(text).then(function () { button.textContent = "Copied"; });
      });
    });
  });

  // A page that is not answered any more says so: what is old is not green.
  function stale() {
    var headline = document.querySelector(".headline");
    if (!headline) return;
    headline.className = "headline warn";
    headline.querySelector("h1").textContent = "No answer from the server: what follows may be old";
  }
  document.addEventListener("htmx:sendError", stale);
  document.addEventListener("htmx:responseError", stale);

  document.addEventListener("submit", function (event) {
    var asked = event.submitter && event.submitter.dataset.sure;
    if (asked && !window.confirm(asked)) event.preventDefault();
  });
})();
