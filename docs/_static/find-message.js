// The search page: lists the messages that a pasted log line or error consists of, values in it or not. Sphinx's own
// search only finds pages that contain each word of the query.
"use strict";
(() => {
  const words = (text) => text.toLowerCase().match(/[a-z0-9_]+/g) || [];

  const groups = (message) =>
    message.split("…").flatMap((part) => {
      const found = words(part);
      // Of short parts only the name of an error tells messages apart.
      if (found.length < 3) return found.filter((word) => word.length > 10 || !message.includes("…"));
      return found.slice(2).map((_, index) => found.slice(index, index + 3).join(" "));
    });

  const show = (query) => {
    const text = ` ${words(query).join(" ")} `;
    const matching = window.MESSAGES.map((message) => {
      const wanted = groups(message.text);
      const hits = wanted.filter((group) => text.includes(` ${group} `)).length;
      return { ...message, hits, share: hits / wanted.length };
    })
      .filter((message) => message.hits > 0)
      .sort((a, b) => b.hits - a.hits || b.share - a.share);
    if (!matching.length) return;
    const found = matching.filter((message) => message.hits > matching[0].hits / 2).slice(0, 3);

    const box = document.createElement("section");
    box.className = "matching-messages";
    box.append("Messages like this one:");
    const list = box.appendChild(document.createElement("ul"));
    for (const { text: message, url } of found) {
      const link = list.appendChild(document.createElement("li")).appendChild(document.createElement("a"));
      link.href = url;
      link.append(message);
    }
    const results = document.getElementById("search-results");
    results.parentNode.insertBefore(box, results);
  };

  document.addEventListener("DOMContentLoaded", () => show(new URLSearchParams(location.search).get("q") || ""));
})();
