// The time the server says it is. EventSource connects again by itself when a generation is replaced.
const clock = document.querySelector("time");
new EventSource(document.currentScript.dataset.events).onmessage = ({ data }) => {
  clock.textContent = data;
  document.title = `${data} UTC`;
};
