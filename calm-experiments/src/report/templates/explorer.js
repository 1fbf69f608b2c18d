// The explorer of a report: a list of test examples, filtered and sorted, and the outputs of one of them side by
// side, each token in the colour of its exit layer.
"use strict";

(() => {
  const byId = (id) => document.getElementById(id);
  const json = byId("data").textContent;
  const { explorer, colours } = JSON.parse(json);
  const { policies, examples } = explorer;

  // What is shown side by side, and what the list's numbers are measured on.
  const chosen = new Set(policies.slice(0, 3).map((_, index) => index));
  let measured = Math.min(1, policies.length - 1);
  let visible = [];
  let selected = 0;

  const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);
  const depth = (output) => (output.exits.length ? sum(output.exits) / output.exits.length : 0);
  const values = {
    order: (example) => examples.indexOf(example),
    depth: (example) => depth(example.outputs[measured]),
    distance: (example) => example.outputs[measured].distance,
    risk: (example) => example.outputs[measured].risk_difference,
    length: (example) => example.outputs[measured].exits.length,
  };
  const textOf = (output) => output.tokens.join("");
  function signed(difference) {
    const size = Math.abs(difference).toFixed(3);
    return size === "0.000" ? size : (difference > 0 ? "+" : "−") + size;
  }
  const numbersOf = (output) =>
    `${depth(output).toFixed(2)} layers · distance ${output.distance.toFixed(3)} · ` +
    `risk ${signed(output.risk_difference)} · ` +
    `${output.exits.length} tokens`;

  function element(name, attributes, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      made.setAttribute(key, value);
    }
    made.append(...children);
    return made;
  }

  // The list.

  const ranges = ["depth", "distance", "length"];
  function limit(id, without) {
    const text = byId(id).value;
    return text === "" ? without : Number(text);
  }
  function passes(example, words) {
    for (const name of ranges) {
      const value = values[name](example);
      if (value < limit(`${name}-min`, -Infinity) || value > limit(`${name}-max`, Infinity)) {
        return false;
      }
    }
    if (!words.length) {
      return true;
    }
    const shown = [...chosen].map((index) => textOf(example.outputs[index]));
    const text = [example.id, example.source, ...example.references, ...shown].join("\n").toLowerCase();
    return words.every((word) => text.includes(word));
  }

  function fillList() {
    const words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const value = values[byId("sort").value];
    const sign = byId("direction").value === "up" ? 1 : -1;
    visible = examples.filter((example) => passes(example, words));
    const keys = new Map(visible.map((example) => [example, value(example)]));
    visible.sort((a, b) => sign * (keys.get(a) - keys.get(b)));
    byId("count").textContent =
      `${visible.length} of ${examples.length} examples, measured on ${policies[measured].id}`;
    byId("list").replaceChildren(
      ...visible.map((example, index) =>
        element(
          "li",
          { role: "option", id: `option-${index}`, "aria-selected": "false" },
          element("span", { class: "first" }, example.source),
          element("span", { class: "numbers" }, numbersOf(example.outputs[measured])),
        ),
      ),
    );
    select(0, false);
  }

  function select(index, scroll) {
    const list = byId("list");
    list.children[selected]?.setAttribute("aria-selected", "false");
    selected = Math.max(0, Math.min(index, visible.length - 1));
    const option = list.children[selected];
    if (option) {
      option.setAttribute("aria-selected", "true");
      list.setAttribute("aria-activedescendant", option.id);
      if (scroll) {
        option.scrollIntoView({ block: "nearest" });
      }
    } else {
      list.removeAttribute("aria-activedescendant");
    }
    showDetail(visible[selected]);
  }

  // One example.

  function showDetail(example) {
    hideTip();
    const detail = byId("detail");
    if (!example) {
      detail.replaceChildren("No example passes the filter.");
      return;
    }
    const facts = element("dl", {}, element("dt", {}, "source"), element("dd", { lang: "" }, example.source));
    for (const reference of example.references) {
      facts.append(element("dt", {}, "reference"), element("dd", { lang: "" }, reference));
    }
    const outputs = element("div", { class: "outputs" });
    for (const index of [...chosen].sort((a, b) => a - b)) {
      outputs.append(outputView(policies[index], example.outputs[index]));
    }
    detail.replaceChildren(element("h3", {}, example.id), facts, outputs);
  }

  function outputView(policy, output) {
    const tokens = element("div", { class: "tokens", role: "group", "aria-label": `Tokens of ${policy.id}`, lang: "" });
    output.exits.forEach((layer, index) => {
      const text = output.tokens[index];
      // The end of a sequence has no text, and neither has a part of a character.
      const shown = text || (index + 1 === output.exits.length ? "end" : "·");
      const { background, text: colour } = colours[layer - 1];
      const token = element(
        "span",
        {
          class: text ? "token" : "token edge",
          style: `background:${background};color:${colour}`,
          tabindex: index === 0 ? "0" : "-1",
          "data-tip": tipText(output, index),
        },
        shown,
      );
      tokens.append(token);
    });
    return element(
      "div",
      { class: "output" },
      element("h4", {}, policy.id),
      element("p", { class: "numbers" }, `${policy.note} · ${numbersOf(output)}`),
      tokens,
    );
  }

  function tipText(output, index) {
    const confidence = output.confidence[index];
    const tested = confidence === null ? "not tested" : `confidence ${confidence}`;
    const text = output.tokens[index];
    return `${text ? `“${text.trim()}”, ` : ""}layer ${output.exits[index]} of ${explorer.layers}, ${tested}, token ${index + 1} of ${output.exits.length}`;
  }

  // The token that the tip is about.
  let tipped = null;

  function showTip(token) {
    tipped?.removeAttribute("aria-describedby");
    tipped = token;
    const tip = byId("tip");
    tip.textContent = token.dataset.tip;
    tip.hidden = false;
    token.setAttribute("aria-describedby", "tip");
    placeTip();
  }
  function placeTip() {
    if (!tipped) {
      return;
    }
    const tip = byId("tip");
    const at = tipped.getClientRects()[0];
    const width = tip.offsetWidth;
    const height = tip.offsetHeight;
    const left = Math.max(4, Math.min(at.left, document.documentElement.clientWidth - width - 4));
    const above = at.top - height - 6;
    tip.style.left = `${left}px`;
    tip.style.top = `${above < 4 ? at.bottom + 6 : above}px`;
  }
  function hideTip() {
    tipped?.removeAttribute("aria-describedby");
    tipped = null;
    byId("tip").hidden = true;
  }

  // What the user does.

  const detail = byId("detail");
  const tokenAt = (event) => event.target.closest?.(".tokens .token");
  for (const [over, out] of [["mouseover", "mouseout"], ["focusin", "focusout"]]) {
    detail.addEventListener(over, (event) => tokenAt(event) && showTip(tokenAt(event)));
    detail.addEventListener(out, (event) => tokenAt(event) && hideTip());
  }
  detail.addEventListener("keydown", (event) => {
    const token = tokenAt(event);
    if (!token) {
      return;
    }
    if (event.key === "Escape") {
      hideTip();
      return;
    }
    const all = [...token.parentElement.children];
    const place = all.indexOf(token);
    const next = { ArrowRight: place + 1, ArrowLeft: place - 1, Home: 0, End: all.length - 1 }[event.key];
    if (all[next]) {
      event.preventDefault();
      token.tabIndex = -1;
      all[next].tabIndex = 0;
      all[next].focus();
    }
  });
  window.addEventListener("scroll", placeTip, { passive: true });
  window.addEventListener("resize", placeTip);

  const list = byId("list");
  list.addEventListener("click", (event) => {
    const option = event.target.closest("li");
    if (option) {
      select([...list.children].indexOf(option), false);
    }
  });
  list.addEventListener("keydown", (event) => {
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: 8, PageUp: -8, Home: -visible.length, End: visible.length };
    const step = steps[event.key];
    if (step) {
      event.preventDefault();
      select(selected + step, true);
    }
  });

  policies.forEach((policy, index) => {
    byId("measured").append(element("option", { value: String(index) }, policy.id));
    const box = element("input", { type: "checkbox", value: String(index) });
    box.checked = chosen.has(index);
    box.defaultChecked = box.checked;
    byId("policies").append(element("label", {}, box, policy.id));
  });
  byId("measured").value = String(measured);

  const controls = byId("controls");
  controls.addEventListener("submit", (event) => event.preventDefault());
  controls.addEventListener("input", (event) => {
    if (event.target.type === "checkbox") {
      const index = Number(event.target.value);
      event.target.checked ? chosen.add(index) : chosen.delete(index);
      showDetail(visible[selected]);
    } else {
      measured = Number(byId("measured").value);
      fillList();
    }
  });
  controls.addEventListener("reset", () => {
    // The fields have their first values only after this event.
    setTimeout(() => {
      chosen.clear();
      policies.slice(0, 3).forEach((_, index) => chosen.add(index));
      measured = Math.min(1, policies.length - 1);
      byId("measured").value = String(measured);
      fillList();
    });
  });

  const copy = byId("copy");
  copy.hidden = false;
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(json);
      byId("copied").textContent = "copied";
    } catch {
      // Without a clipboard, as browsers have none for some pages of the disk.
      const area = element("textarea", { "aria-label": "All data as JSON", readonly: "", rows: "8", style: "width:100%" });
      area.value = json;
      copy.after(area);
      area.select();
      byId("copied").textContent = "copy it from the field";
    }
  });

  byId("explorer-app").hidden = false;
  fillList();
})();
