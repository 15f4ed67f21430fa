"use strict";
const make = (tag, text, css) => {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (css) node.className = css;
  return node;
};

/* Figures that nobody sees at first are text, and are unpacked when they come near the window. */
const unpack = figure => {
  const packed = figure.querySelector(":scope > script");
  if (!packed) return;
  figure.innerHTML = packed.textContent;  /* this page's own markup, with all data escaped */
  figure.querySelectorAll("svg.lines").forEach(readable);
};
const near = new IntersectionObserver(entries => entries.forEach(entry => {
  if (!entry.isIntersecting) return;
  near.unobserve(entry.target);
  unpack(entry.target);
}), { rootMargin: "600px" });
addEventListener("beforeprint", () => document.querySelectorAll("figure:not([hidden])").forEach(unpack));

/* Switches: a group of radio buttons shows the panels that carry its choices. */
document.querySelectorAll("[data-switches]").forEach(area => {
  const update = () => {
    const chosen = [...area.querySelectorAll(".switch input:checked")].map(input => input.value);
    area.querySelectorAll("[data-panel]").forEach(panel => {
      panel.hidden = !panel.dataset.panel.split(" ").every(value => chosen.includes(value));
    });
  };
  area.addEventListener("change", update);
  update();
});

/* Legends: a button hides and shows an agent in every figure of the page. */
document.querySelectorAll(".legend button").forEach(button => button.addEventListener("click", () => {
  const slot = button.dataset.slot, hidden = document.body.classList.toggle("hide-" + slot);
  document.querySelectorAll(`.legend button[data-slot="${slot}"]`).forEach(
    other => other.setAttribute("aria-pressed", String(!hidden)));
}));

/* Line charts: values at the pointer, or where the arrow keys have moved. */
const readable = svg => {
  const figure = svg.closest("figure");
  const cursor = svg.querySelector(".cursor"), dots = svg.querySelector(".cursors");
  const tip = make("div", "", "tip");
  tip.hidden = true;
  tip.setAttribute("role", "status");
  let series = [], places = [], at = -1;
  const read = () => {  /* its values, once somebody wants them */
    if (places.length) return;
    series = JSON.parse(svg.dataset.points);
    places = [...new Set(series.flatMap(one => one.points.map(point => point[0])))].sort((a, b) => a - b);
    figure.append(tip);
  };
  const nearest = (points, x) => points.reduce((best, p) => Math.abs(p[0] - x) < Math.abs(best[0] - x) ? p : best);
  const leave = () => { svg.classList.remove("on"); dots.replaceChildren(); tip.hidden = true; at = -1; };
  const show = x => {
    const shown = series.filter(one => !document.body.classList.contains("hide-" + one.slot)
      && x <= one.points[one.points.length - 1][0] + 3);
    if (!shown.length) return leave();
    svg.classList.add("on");
    cursor.setAttribute("x1", x); cursor.setAttribute("x2", x);
    dots.replaceChildren();
    const found = shown.map(one => [one, nearest(one.points, x)]).sort((a, b) => a[1][1] - b[1][1]);
    const close = found.reduce((best, pair) => Math.abs(pair[1][0] - x) < Math.abs(best[0] - x) ? pair[1] : best,
      found[0][1]);
    tip.replaceChildren(make("b", `${close[2]} ${svg.dataset.unit}`));
    for (const [one, point] of found) {
      const dot = document.createElementNS(svg.namespaceURI, "circle");
      dot.setAttribute("cx", point[0]); dot.setAttribute("cy", point[1]); dot.setAttribute("r", 4.5);
      dot.setAttribute("class", "c" + one.slot);
      dots.append(dot);
      tip.append(make("span", `${one.name}: ${point[3]}`));
    }
    tip.hidden = false;
    const box = svg.getBoundingClientRect(), outer = figure.getBoundingClientRect();
    const left = box.left - outer.left + x / svg.viewBox.baseVal.width * box.width;
    const right = left > outer.width / 2;
    tip.style.left = Math.max(4, right ? left - tip.offsetWidth - 12 : Math.min(left + 12,
      outer.width - tip.offsetWidth - 4)) + "px";
    tip.style.top = box.top - outer.top + 12 + "px";
  };
  svg.addEventListener("pointermove", event => {
    read();
    const box = svg.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
    show(places.reduce((best, place) => Math.abs(place - x) < Math.abs(best - x) ? place : best));
  });
  svg.addEventListener("pointerleave", leave);
  svg.addEventListener("blur", leave);
  svg.addEventListener("keydown", event => {
    read();
    const last = places.length - 1;
    const moves = { ArrowRight: at + 1, ArrowLeft: at < 0 ? last : at - 1, Home: 0, End: last };
    if (event.key === "Escape") return leave();
    if (!(event.key in moves)) return;
    event.preventDefault();
    at = Math.min(last, Math.max(0, moves[event.key]));
    const kept = at;
    show(places[at]);
    at = kept;
  });
};
document.querySelectorAll("svg.lines").forEach(readable);
document.querySelectorAll("figure:has(> script)").forEach(figure => near.observe(figure));

/* The token view. */
const signed = value => (value > 0 ? "+" : value < 0 ? "−" : "") + plain(Math.abs(value));
const plain = value => (value < 0 ? "−" : "") + Math.abs(value).toFixed(3);
const METRICS = {
  q: { name: "Q", format: plain }, advantage: { name: "advantage", format: signed },
  margin: { name: "margin", format: signed }, reward: { name: "reward", format: plain },
  td: { name: "TD error", format: signed },
};
document.querySelectorAll(".viewer").forEach(viewer => {
  const data = JSON.parse(document.getElementById(viewer.dataset.source).textContent);
  const list = viewer.querySelector(".episodes"), strip = viewer.querySelector(".tokens");
  const prompt = viewer.querySelector(".prompt"), detail = viewer.querySelector(".detail");
  const scale = viewer.querySelector(".scale");
  let episode = 0, token = 0, metric = "q", boxes = [];

  const value = step => step[metric];
  const everything = () => data.flatMap(one => one.steps.map(value)).filter(v => v !== null);
  const bounds = () => {
    const all = everything().sort((a, b) => a - b);
    if (!all.length) return [0, 1];
    const cut = share => all[Math.round(share * (all.length - 1))];
    return [Math.min(0, cut(.01)), Math.max(0, cut(.99))];  /* a few outliers must not flatten the rest */
  };
  const tone = (v, [low, high]) => {
    if (v === null) return "";
    const size = v < 0 ? (low < 0 ? v / low : 0) : (high > 0 ? v / high : 0);
    const share = Math.round(6 + 66 * Math.min(1, size));
    return `color-mix(in oklab, var(--${v < 0 ? "cold" : "warm"}) ${v === 0 ? 0 : share}%, var(--card))`;
  };
  const paint = () => {
    const range = bounds();
    boxes.forEach((box, index) => {
      const v = value(data[episode].steps[index]);
      box.style.setProperty("--tone", tone(v, range));
      box.querySelector("small").textContent = v === null ? "–" : METRICS[metric].format(v);
    });
    const mix = name => `color-mix(in oklab, var(--${name}) 72%, var(--card))`;
    const colours = (range[0] < 0 ? [mix("cold")] : []).concat(["var(--card)"], range[1] > 0 ? [mix("warm")] : []);
    const bar = make("i");
    bar.style.background = `linear-gradient(to right, ${colours.length > 1 ? colours : [colours[0], colours[0]]})`;
    scale.replaceChildren(make("span", METRICS[metric].format(range[0])), bar,
      make("span", METRICS[metric].format(range[1])));
  };
  const fact = (name, text) => {
    const pair = make("div");
    pair.append(make("dt", name), make("dd", text));
    return pair;
  };
  const choose = (index, focus) => {
    token = index;
    boxes.forEach((box, place) => {
      box.setAttribute("aria-selected", String(place === index));
      box.tabIndex = place === index ? 0 : -1;
    });
    if (focus) boxes[index].focus();
    const step = data[episode].steps[index];
    const heading = make("h3", `Token ${index + 1} of ${data[episode].steps.length}: `);
    heading.append(make("bdi", step.text));
    if (step.slip) heading.append(" (a random slip)");
    const facts = make("dl", undefined, "facts");
    facts.append(fact("Q, this token", plain(step.q)), fact("V = max Q", plain(step.v)),
      fact("advantage", signed(step.advantage)), fact("margin", step.margin === null ? "–" : signed(step.margin)),
      fact("reward", plain(step.reward)), fact("TD error", signed(step.td)));
    const table = make("table", undefined, "best"), head = make("thead"), body = make("tbody"), row = make("tr");
    table.append(make("caption", "The model's best tokens here"));
    for (const [title, css] of [["token", ""], ["Q", "n"], ["", ""]]) {
      const cell = make("th", title, css);
      cell.scope = "col";
      row.append(cell);
    }
    head.append(row);
    const all = step.best.map(best => best[1]).concat(step.q, 0);
    const low = Math.min(...all), span = Math.max(...all) - low || 1;
    const rows = step.best.some(best => best[2]) ? step.best : step.best.concat([[step.text, step.q, true]]);
    for (const [text, q, chosen] of rows) {
      const line = make("tr", undefined, chosen ? "chosen" : ""), name = make("td"), bar = make("td");
      name.append(make("bdi", text), chosen ? " (chosen)" : "");
      const meter = make("div", undefined, "meter");
      meter.style.width = Math.max(1, 100 * (q - low) / span) + "%";
      bar.append(meter);
      line.append(name, make("td", plain(q), "n"), bar);
      body.append(line);
    }
    table.append(head, body);
    detail.replaceChildren(heading, facts, table);
  };
  const open = (index, focus) => {
    episode = index;
    [...list.children].forEach((option, place) => {
      option.setAttribute("aria-selected", String(place === index));
      option.tabIndex = place === index ? 0 : -1;
    });
    const option = list.children[index];
    if (focus) option.focus({ preventScroll: true });
    if (option.offsetTop < list.scrollTop + list.offsetTop) list.scrollTop = option.offsetTop - list.offsetTop;
    const below = option.offsetTop + option.offsetHeight - list.offsetTop - list.clientHeight;
    if (below > list.scrollTop) list.scrollTop = below;
    prompt.replaceChildren("Prompt: ", make("bdi", data[index].prompt),
      ` · return ${plain(data[index].total)} · ${data[index].slips ? "with random slips" : "greedy"}`);
    strip.replaceChildren();
    boxes = data[index].steps.map((step, place) => {
      const box = make("div", undefined, step.slip ? "slip" : "");
      box.setAttribute("role", "option");
      box.append(make("bdi", step.text), make("small", ""));
      box.addEventListener("click", () => choose(place, true));
      strip.append(box);
      if (step.reply) strip.append(make("div", step.reply, "reply"));
      return box;
    });
    paint();
    choose(Math.min(token, boxes.length - 1), false);
  };
  data.forEach((one, index) => {
    const option = make("li");
    option.setAttribute("role", "option");
    option.append(make("b", plain(one.total)), one.slips ? " with slips" : " greedy");
    const words = make("small");
    words.append(make("bdi", one.prompt), " → ", make("bdi", one.steps.map(step => step.text).join(" ")));
    option.append(words);
    option.addEventListener("click", () => open(index, true));
    list.append(option);
  });
  const keys = (element, count, here, go, back, forth) => element.addEventListener("keydown", event => {
    const moves = { [back]: here() - 1, [forth]: here() + 1, Home: 0, End: count() - 1 };
    if (!(event.key in moves)) return;
    event.preventDefault();
    go(Math.min(count() - 1, Math.max(0, moves[event.key])), true);
  });
  keys(list, () => data.length, () => episode, open, "ArrowUp", "ArrowDown");
  keys(strip, () => boxes.length, () => token, choose, "ArrowLeft", "ArrowRight");
  strip.addEventListener("keydown", event => {  /* the episode above or below, at the same token */
    const move = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!move) return;
    event.preventDefault();
    open(Math.min(data.length - 1, Math.max(0, episode + move)), false);
    boxes[token].focus();
  });
  viewer.parentElement.querySelectorAll(".metric input").forEach(input => input.addEventListener("change", () => {
    metric = input.value;
    paint();
  }));
  open(0, false);
});
document.body.dataset.ready = "true";
