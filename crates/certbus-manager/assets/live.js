// What pages do better with a script: a poll is watched as it ends, boxes are ticked at once, dangerous buttons ask first.
(function () {
  "use strict";

  function watch(place) {
    if (!window.EventSource) return;
    var source = new EventSource(place.dataset.watch);
    source.addEventListener("polled", function (event) {
      place.innerHTML = event.data;
      var said = document.getElementById("poll-said");
      if (said) said.textContent = "polled just now";
    });
    source.addEventListener("over", function () { source.close(); });
    window.addEventListener("pagehide", function () { source.close(); });
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

  document.addEventListener("submit", function (event) {
    var asked = event.submitter && event.submitter.dataset.sure;
    if (asked && !window.confirm(asked)) event.preventDefault();
  });
})();
