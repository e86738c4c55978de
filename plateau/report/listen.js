// A word plays exactly those samples that the page names for it: they are cut out of the WAV file
// of the utterance, which is in the page, and not looked for by time in a player.
"use strict";

const HEADER = 44; // bytes; plateau/report/audio.py
const calm = matchMedia("(prefers-reduced-motion: reduce)"); // then only a hand scrolls
let context = null;
let stop = () => {};

function samplesOf(audio) {
  const bytes = Uint8Array.from(atob(audio.src.split(",")[1]), (c) => c.charCodeAt(0));
  return Float32Array.from(new Int16Array(bytes.buffer, HEADER), (x) => x / 32768);
}

function play(word) {
  stop();
  document.querySelectorAll("audio").forEach((audio) => audio.pause());
  const audio = word.closest("article").querySelector("audio");
  const samples = samplesOf(audio).subarray(Number(word.dataset.first), Number(word.dataset.end));
  context ??= new AudioContext();
  context.resume(); // browsers start it with the first click only
  const source = context.createBufferSource();
  source.buffer = context.createBuffer(1, samples.length, Number(audio.dataset.rate));
  source.buffer.copyToChannel(samples, 0);
  source.connect(context.destination);
  source.onended = () => word.classList.remove("playing");
  stop = () => source.stop();
  word.classList.add("playing");
  source.start();
}

function follow(audio, cursor, pixelsPerSecond) {
  const x = audio.currentTime * pixelsPerSecond;
  cursor.style.left = `${x}px`;
  const view = cursor.closest(".scroll");
  const seen = x >= view.scrollLeft && x <= view.scrollLeft + view.clientWidth;
  if (!seen && !calm.matches) view.scrollLeft = x - view.clientWidth / 10; // turns the page
  if (!audio.paused) requestAnimationFrame(() => follow(audio, cursor, pixelsPerSecond));
}

// A box that goes on to the right or left says so; see .scroll in plateau/report/page.py.
function point() {
  for (const box of document.querySelectorAll(".scroll")) {
    const rest = box.scrollWidth - box.clientWidth - box.scrollLeft;
    box.classList.toggle("more", rest > 24); // the fade's own width
    box.classList.toggle("less", box.scrollLeft > 0);
  }
}
for (const event of ["load", "resize", "scroll", "toggle"]) addEventListener(event, point, true);

for (const article of document.querySelectorAll("article")) {
  const audio = article.querySelector("audio");
  const cursor = article.querySelector(".cursor");
  const pixelsPerSecond = Number(cursor.dataset.pixelsPerSecond);
  const first = article.querySelector(".words button");
  const view = cursor.closest(".scroll");
  if (first && first.offsetLeft > view.clientWidth) view.scrollLeft = first.offsetLeft - 48;
  for (const event of ["play", "seeked"]) {
    audio.addEventListener(event, () => follow(audio, cursor, pixelsPerSecond));
  }
  for (const word of article.querySelectorAll("button")) {
    word.addEventListener("click", () => play(word));
  }
}
