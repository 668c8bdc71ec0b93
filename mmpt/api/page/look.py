"""What the page looks like, and what its browser does by itself: play from a click, and mark where a video is."""

__all__ = ["HEAD"]

_SCRIPT = """
const mmptVideo = () => document.querySelector('#mmpt-player video');
const mmptPlay = (seconds) => {
  const video = mmptVideo();
  if (video) { video.currentTime = seconds; video.play().catch(() => {}); }
};
document.addEventListener('click', (event) => {
  const span = event.target.closest('[data-seek]');
  if (span) { mmptPlay(Number(span.dataset.seek)); return; }
  const axis = event.target.closest('[data-from]');
  if (!axis) return;
  const box = axis.getBoundingClientRect(), first = Number(axis.dataset.from), last = Number(axis.dataset.to);
  mmptPlay(first + (last - first) * (event.clientX - box.left) / box.width);
});
document.addEventListener('timeupdate', (event) => {
  if (event.target !== mmptVideo()) return;
  document.querySelectorAll('[data-from]').forEach((axis) => {
    const first = Number(axis.dataset.from), last = Number(axis.dataset.to);
    axis.firstElementChild.style.left = 100 * (event.target.currentTime - first) / (last - first) + '%';
    axis.firstElementChild.style.display = 'block';
  });
}, true);
"""

_STYLE = """
.mmpt-heading { display: flex; gap: 12px; align-items: baseline; flex-wrap: wrap; }
.mmpt-heading h1 { margin: 0; font-size: 1.6em; font-weight: 700; }
.mmpt-heading > span:last-child { opacity: .75; }
.mmpt-chip { border: 1px solid var(--border-color-primary); border-radius: 12px; padding: 1px 10px; font-size: .9em; }
.gradio-container, .gradio-container main, .gradio-container .wrap { overflow: visible !important; }
#mmpt-left { position: sticky; top: 8px; align-self: flex-start; }
h3.mmpt-name-of { margin: 12px 0 0; font-weight: 600; }
#mmpt-player video { width: 100%; height: 300px; background: #000; border-radius: 6px; }
.mmpt-facts, .mmpt-name { opacity: .75; font-size: .85em; overflow-wrap: anywhere; }
.mmpt-alert { border-left: 4px solid #c2410c; background: #fff1e6; color: #431407; padding: 8px 12px; margin: 8px 0;
  overflow-wrap: anywhere; }
.mmpt-waiting { border-left: 4px solid #0072b2; padding: 8px 12px; }
.mmpt-figure { position: relative; background: #fff; border-radius: 6px; padding: 0; }
.mmpt-figure img { width: 100%; display: block; }
.mmpt-axis { position: absolute; top: 0; bottom: 0; cursor: pointer; overflow: hidden; }
.mmpt-now { display: none; position: absolute; top: 0; bottom: 0; width: 2px; background: #c2410c; }
.mmpt-scroll { max-height: 260px; overflow-y: auto; }
.mmpt-table { width: 100%; border-collapse: collapse; margin: 8px 0; }
.mmpt-table th { text-align: left; opacity: .75; font-weight: 500; font-size: .85em; }
.mmpt-table th, .mmpt-table td { padding: 4px 8px; border-bottom: 1px solid var(--border-color-primary); }
.mmpt-table button { cursor: pointer; white-space: nowrap; color: #0072b2; font-variant-numeric: tabular-nums; }
.mmpt-table button:hover { text-decoration: underline; }
.mmpt-table tr:hover td { background: var(--background-fill-secondary); }
.mmpt-share { width: 45%; }
.mmpt-share i { display: block; height: 12px; min-width: 2px; background: #0072b2; border-radius: 3px; }
.mmpt-cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 10px; }
.mmpt-cards button { text-align: left; padding: 6px; border: 2px solid var(--border-color-primary); border-radius: 8px;
  cursor: pointer; min-width: 0; }
.mmpt-cards button:hover, .mmpt-cards button[aria-pressed=true] { border-color: #0072b2; }
.mmpt-cards img, .mmpt-blank { display: block; width: 100%; height: 100px; object-fit: contain; background: #000;
  border-radius: 4px; }
.mmpt-line { display: flex; justify-content: space-between; margin-top: 4px; }
.mmpt-name { display: block; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
/* Where the columns stand one above the other, the player alone stays in view, above what is scrolled. */
@media (max-width: 820px) {
  #mmpt-left { display: contents; }
  #mmpt-left > *, #mmpt-left + * { flex: 1 1 100% !important; min-width: 100% !important; }
  #mmpt-player { position: sticky; top: 0; z-index: 50; padding: 4px 0; background: var(--body-background-fill); }
  #mmpt-player video { height: 30vh; }
  #mmpt-player .mmpt-facts { margin: 0; white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
}
"""

HEAD = f"<style>{_STYLE}</style><script>{_SCRIPT}</script>"
