"use strict";
// Charts from the desk's own figures, tables that sort, a page that follows its session.

const dark = matchMedia("(prefers-color-scheme: dark)");
const narrow = matchMedia("(max-width: 640px)");

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// Plotly's script is large: it is asked for once the page, its sketches included, stands there.
let script = null;
function plotly() {
  script ??= new Promise((done, failed) => {
    const element = document.createElement("script");
    element.src = document.querySelector("[data-plotly]").dataset.plotly;
    element.onload = done;
    element.onerror = () => failed(new Error("the script of the charts is missing"));
    requestAnimationFrame(() => setTimeout(() => document.head.append(element)));
  });
  return script;
}

// Beside the chart a scale of colours would take a third of a phone's width.
function scaleBelow(trace) {
  if (!trace.marker?.colorbar) return trace;
  const colorbar = {...trace.marker.colorbar, orientation: "h", y: -0.1, yanchor: "top"};
  return {...trace, marker: {...trace.marker, colorbar}};
}

async function draw(element, figure) {
  await plotly();
  const axis = {gridcolor: colour("--line"), linecolor: colour("--line"), zerolinecolor: colour("--line")};
  const layout = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: {color: colour("--ink"), size: narrow.matches ? 11 : 12},
    margin: {l: narrow.matches ? 44 : 74, r: 12, t: 20, b: 40},
    legend: {orientation: "h", y: 1.06}, uirevision: element.id || "chart", ...figure.layout,
  };
  for (const key of Object.keys(layout).filter((key) => /^[xy]axis\d*$/.test(key))) {
    layout[key] = {automargin: true, ...axis, ...layout[key]};
    if (narrow.matches) delete layout[key].title;
    else if (layout[key].title) layout[key].title = {standoff: 6, ...layout[key].title};
  }
  // On a touch screen a finger on a chart must scroll the page.
  if (matchMedia("(pointer: coarse)").matches) layout.dragmode = false;
  element.figure = figure;
  const data = narrow.matches ? figure.data.map(scaleBelow) : figure.data;
  await Plotly.react(element, data, layout, {displayModeBar: false, responsive: true});
  element.querySelector(".sketch")?.remove();
}

async function get(url) {
  const response = await fetch(url, {headers: {accept: "application/json"}});
  if (response.status === 401 || response.redirected) {
    location.assign("/login");
    throw new Error("sign in first");
  }
  if (!response.ok) throw new Error(`${response.status}`);
  return response;
}

async function figures() {
  for (const element of document.querySelectorAll("[data-figure]")) {
    try {
      const figure = await (await get(element.dataset.figure)).json();
      if (figure.problem) { element.textContent = figure.problem; continue; }
      await draw(element, figure);
      if (element.dataset.near) element.on("plotly_click", (event) => near(element, event));
    } catch (error) { element.textContent = `The chart could not be read (${error.message}).`; }
  }
}

async function near(element, event) {
  const [symbol, day] = event.points[0].customdata;
  const query = new URLSearchParams({symbol, day_ms: day});
  const target = document.getElementById("near");
  target.innerHTML = await (await get(`${element.dataset.near}?${query}`)).text();
  target.scrollIntoView({block: "nearest"});
}

function follow() {
  const now = document.getElementById("now");
  if (!now) return;
  const link = document.getElementById("link");
  let busy = false, again = false;
  async function look() {
    if (busy) { again = true; return; }
    busy = true;
    try {
      const view = await (await get(now.dataset.view)).json();
      const open = now.querySelector("details")?.open;
      now.innerHTML = view.html;
      if (open) now.querySelector("details")?.setAttribute("open", "");
      if (view.figure) await draw(document.getElementById("chart"), view.figure);
      link.textContent = "live";
    } catch (error) { link.textContent = "the desk does not answer"; script = null; }
    busy = false;
    if (again) { again = false; look(); }
  }
  function listen() {
    const source = new EventSource(now.dataset.live);
    source.onmessage = look;
    source.onerror = () => {
      link.textContent = "the desk does not answer; trying again";
      // A browser tries again by itself, unless the answer was no stream: sign in anew, say.
      if (source.readyState === EventSource.CLOSED) setTimeout(() => { look(); listen(); }, 2000);
    };
  }
  listen();
  look();
}

function sortable(table) {
  const body = table.tBodies[0];
  table.querySelectorAll("th").forEach((head, column) => head.addEventListener("click", () => {
    const falling = head.getAttribute("aria-sort") !== "descending";
    table.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", falling ? "descending" : "ascending");
    const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
    const rows = [...body.rows].sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === "" || y === "") return (x === "") - (y === "");  // what is not known stays last
      const order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
      return falling ? -order : order;
    });
    body.append(...rows);
  }));
}

document.querySelectorAll("table.sortable").forEach(sortable);
document.querySelectorAll("[data-copy]").forEach((button) => button.addEventListener("click", async () => {
  await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
  button.textContent = "copied";
}));
dark.addEventListener("change", () => document.querySelectorAll(".chart").forEach((element) => {
  if (element.figure) draw(element, element.figure);
}));
figures();
follow();
