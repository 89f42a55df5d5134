document.querySelectorAll("button[data-scale]").forEach(function (button) {
  button.addEventListener("click", function () {
    Plotly.relayout(button.dataset.of, {"yaxis.type": button.dataset.scale});
  });
});
// On a touch screen a finger on a chart must scroll the page, not zoom the chart.
if (matchMedia("(pointer:coarse)").matches) {
  document.querySelectorAll(".plotly-graph-div").forEach(function (chart) {
    Plotly.relayout(chart, {dragmode: false});
  });
}
