// Elements, and numbers as people read them. Text from outside goes in as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, text] of Object.entries(value)) node.style.setProperty(key, text);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}

export const element = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
export const drawn = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

// Three significant digits and a unit, as in 12 us, 40.1 ms.
function scaled(value, units, step = 1000) {
  let place = 0;
  while (Math.abs(value) >= step - 0.5 && place < units.length - 1) {
    value /= step;
    place += 1;
  }
  const digits = Math.abs(value) >= 100 ? value.toFixed(0) : String(Number(value.toPrecision(3)));
  return `${digits} ${units[place]}`;
}

export const duration = (ns) => (ns === null || ns === undefined ? "–" : ns === 0 ? "0" : scaled(ns, ["ns", "µs", "ms", "s"]));
export const size = (bytes) => (bytes === null || bytes === undefined ? "–" : scaled(bytes, ["B", "kB", "MB", "GB", "TB"]));
export const count = (number) => number.toLocaleString("en");
export const counted = (number, what) => `${count(number)} ${what}${number === 1 ? "" : "s"}`;
export const words = (name) => name.replaceAll("_", " ");

// The time of day of a moment, which counts nanoseconds from the first event.
export function clock(moment, origin_ms, digits = 3) {
  const micro = Math.floor(moment / 1000) + Math.round(origin_ms * 1000);
  const date = new Date(Math.floor(micro / 1000));
  const part = String(((micro % 1_000_000) + 1_000_000) % 1_000_000).padStart(6, "0").slice(0, digits);
  const two = (number) => String(number).padStart(2, "0");
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${part}`;
}

export const PARTS = ["send_queue", "network_there", "server_queue", "server", "network_back", "unread", "transfer"];

export function partName(part, request) {
  return part === "server" && request.server_source === "client" ? "server and network" : words(part);
}

// A bar of where a request's time went.
export function splitBar(request) {
  const bar = element("div", { class: "split" });
  if (!request.took) return bar;
  for (const part of PARTS) {
    const share = (request.split[part] ?? 0) / request.took;
    if (share > 0.004) bar.append(element("span", { class: part, style: { width: `${100 * share}%` } }));
  }
  return bar;
}
