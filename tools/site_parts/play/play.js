// What the pages to play on and the films share: samples cut from a sheet, a chart over stages, and playing through moments.
function shape(name, attributes, parent) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const key in attributes) made.setAttribute(key, attributes[key]);
  parent.append(made);
  return made;
}
function tiles(canvas, sheet, across, columns, state, first = 0) {  // those that the judge takes for the target have a frame
  const size = canvas.width / columns, tile = sheet.naturalWidth / across, pen = canvas.getContext("2d");
  pen.clearRect(0, 0, canvas.width, canvas.height);
  pen.imageSmoothingQuality = "high";
  for (let n = 0; n < columns * Math.round(canvas.height / size); n++) {
    const x = (n % columns) * size + 4, y = Math.floor(n / columns) * size + 4;
    pen.drawImage(sheet, (first + n) * tile, state.row * tile, tile, tile, x, y, size - 8, size - 8);
    pen.lineWidth = 6;
    pen.strokeStyle = "#ff9f1c";
    if (state.marks[n]) pen.strokeRect(x, y, size - 8, size - 8);
  }
}
function chart(svg, labels, top, said) {  // stages from left to right, 0 to `top` samples from below
  const left = 46, right = 424, floor = 232, ceiling = 18;
  const x = k => left + (right - left) * k / (labels.length - 1), y = value => floor - (floor - ceiling) * value / top;
  svg.setAttribute("viewBox", "0 0 440 290");
  for (let value = 0; value <= top; value += top / 4) {
    shape("line", {class: "grid", x1: left, x2: right, y1: y(value), y2: y(value)}, svg);
    shape("text", {x: left - 8, y: y(value) + 5, "text-anchor": "end"}, svg).textContent = value;
  }
  labels.forEach((label, k) => {
    const end = k === 0 ? "start" : k === labels.length - 1 ? "end" : "middle";
    shape("text", {x: k === 0 ? left - 8 : x(k), y: floor + 22, "text-anchor": end}, svg).textContent = label;
  });
  shape("text", {x: (left + right) / 2, y: floor + 46, "text-anchor": "middle", class: "axis"}, svg).textContent = said;
  const path = values => values.map((value, k) => `${k ? "L" : "M"}${x(k)} ${y(value)}`).join("");
  return {x, y, path, top, stages: labels.length,
          line: kind => shape("path", {class: `line ${kind}`, d: ""}, svg), dot: kind => shape("circle", {class: kind, r: 7}, svg)};
}
function player(button, slider, last, wait, draw) {  // draw(true) while it plays
  let timer = 0;
  function stop() { clearInterval(timer); timer = 0; button.textContent = "Play"; draw(false); }
  function play() {
    if (Number(slider.value) === last) slider.value = 0;
    button.textContent = "Pause";
    draw(true);
    timer = setInterval(() => {
      slider.value = Number(slider.value) + 1;
      if (Number(slider.value) === last) stop(); else draw(true);
    }, wait);
  }
  slider.max = last;
  button.addEventListener("click", () => timer ? stop() : play());
  slider.addEventListener("input", stop);
  return {play, stop};
}
function whenLoaded(sheet, begin) {
  if (sheet.complete && sheet.naturalWidth) begin(); else sheet.addEventListener("load", begin);
}
