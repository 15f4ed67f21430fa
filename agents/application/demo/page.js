/* The legal tokens: a click takes one, and so do its letter and Enter; arrows move, Backspace undoes. The buttons are
   new after each token, so that the focus has to be put back. */
let kept = null;
const buttons = () => [...element.querySelectorAll("button[data-token]")];
const take = button => {
  kept = button.dataset.token;
  trigger("select", { token: Number(button.dataset.token) });
};
element.addEventListener("click", event => {
  const button = event.target.closest("button[data-token]");
  if (button) take(button);
});
element.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const all = buttons(), at = all.indexOf(document.activeElement);
  const moves = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: all.length - 1 };
  if (event.key in moves) {
    event.preventDefault();
    all[Math.min(all.length - 1, Math.max(0, moves[event.key]))]?.focus();
  } else if (event.key === "Backspace") {
    event.preventDefault();
    kept = document.activeElement.dataset.token ?? "";
    trigger("delete");
  } else if (event.key.length === 1 && event.key !== " ") {
    const named = all.find(button => button.textContent === event.key);
    if (named) { event.preventDefault(); take(named); }
  }
});
new MutationObserver(() => {
  if (kept === null || !buttons().length) return;
  const all = buttons();
  (all.find(button => button.dataset.token === kept) ?? all[0]).focus();
  kept = null;
}).observe(element, { childList: true, subtree: true });
