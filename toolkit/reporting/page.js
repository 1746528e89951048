"use strict";
(function () {
  var root = document.documentElement, button = document.getElementById("theme"), tip = document.getElementById("tip");
  var names = { auto: "Theme: system", light: "Theme: light", dark: "Theme: dark" };
  var next = { auto: "light", light: "dark", dark: "auto" };
  function show(theme) {
    if (theme === "auto") root.removeAttribute("data-theme");
    else root.setAttribute("data-theme", theme);
    button.textContent = names[theme];
    button.onclick = function () { show(next[theme]); };
  }
  button.hidden = false;
  show("auto");
  document.querySelectorAll("svg title").forEach(function (title) {
    title.parentNode.setAttribute("data-tip", title.textContent);
    title.remove();
  });
  document.addEventListener("pointermove", function (event) {
    var told = event.target.closest ? event.target.closest("[data-tip]") : null;
    tip.hidden = !told;
    if (!told) return;
    tip.textContent = told.getAttribute("data-tip");
    var room = document.documentElement.clientWidth - tip.offsetWidth - 8;
    tip.style.left = Math.max(8, Math.min(event.clientX + 12, room)) + "px";
    tip.style.top = event.clientY + 16 + "px";
  });
  window.addEventListener("beforeprint", function () {
    document.querySelectorAll("details").forEach(function (part) { part.open = true; });
  });
})();
