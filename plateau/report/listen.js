// A word plays exactly those samples that the page names for it: they are cut out of the WAV file
// of the utterance, which is in the page, and not looked for by time in a player.
"use strict";

const HEADER = 44; // bytes; plateau/report/audio.py
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
  cursor.style.left = `${audio.currentTime * pixelsPerSecond}px`;
  if (!audio.paused) requestAnimationFrame(() => follow(audio, cursor, pixelsPerSecond));
}

for (const article of document.querySelectorAll("article")) {
  const audio = article.querySelector("audio");
  const cursor = article.querySelector(".cursor");
  const pixelsPerSecond = Number(cursor.dataset.pixelsPerSecond);
  for (const event of ["play", "seeked"]) {
    audio.addEventListener(event, () => follow(audio, cursor, pixelsPerSecond));
  }
  for (const word of article.querySelectorAll("button")) {
    word.addEventListener("click", () => play(word));
  }
}
