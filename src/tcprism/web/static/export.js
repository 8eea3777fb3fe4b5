// What a screen shows, as a file; and its link.

import { element } from "./dom.js";

function save(name, type, text) {
  const address = URL.createObjectURL(new Blob([text], { type }));
  const link = element("a", { href: address, download: name });
  link.click();
  URL.revokeObjectURL(address);
}

// A cell of CSV; what a spreadsheet would take for a formula is made text.
function cell(value) {
  let text = value === null || value === undefined ? "" : String(value);
  if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`;
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

const csv = (rows) => rows.map((row) => row.map(cell).join(",") + "\n").join("");

// Rows of objects as a table: a column for each value, those inside others by their path.
function table(rows) {
  const flat = rows.map((row) => {
    const cells = {};
    for (const [name, value] of Object.entries(row)) {
      if (value !== null && typeof value === "object") for (const [key, inner] of Object.entries(value)) cells[`${name}.${key}`] = inner;
      else cells[name] = value;
    }
    return cells;
  });
  const names = [...new Set(flat.flatMap(Object.keys))];
  return [names, ...flat.map((row) => names.map((name) => row[name]))];
}

// The address of what is shown, without the token: who has the page open can follow it.
async function copyLink() {
  try {
    await navigator.clipboard.writeText(location.href);
  } catch { // elsewhere than on this machine, browsers have no clipboard without encryption
    const field = element("textarea", { "aria-hidden": "true", class: "unseen" });
    field.value = location.href;
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  }
}

// Buttons for `exported()`, which resolves to {name, rows, data}: a table, and all as it is.
export function exportButtons(exported) {
  const said = element("span", { class: "quiet", "aria-live": "polite" });
  const tell = (text) => {
    said.textContent = text;
    setTimeout(() => {
      said.textContent = "";
    }, 2000);
  };
  const button = (text, title, work) => element("button", {
    type: "button", title, onclick: () => work().catch((error) => tell(error.message)),
  }, text);
  return [
    said,
    button("Save as CSV", "What is shown, as a table", async () => {
      const { name, rows } = await exported();
      save(`${name}.csv`, "text/csv", csv(table(rows)));
    }),
    button("Save as JSON", "What is shown, as JSON", async () => {
      const { name, rows, data } = await exported();
      save(`${name}.json`, "application/json", JSON.stringify(data ?? rows, null, 1));
    }),
    button("Copy link", "The address of this view, without the token", async () => {
      await copyLink();
      tell("copied");
    }),
  ];
}
