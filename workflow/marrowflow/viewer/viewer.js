// Shows `slide`, of the script before: a pyramid of tiles that lie in the page itself, and maps to lay over it.
"use strict";
(() => {
  const last = slide.levels - 1;
  const viewer = OpenSeadragon({
    element: document.getElementById("slide"),
    drawer: "canvas",
    showNavigationControl: false,
    showNavigator: true,
    navigatorAutoFade: false,
    maxZoomPixelRatio: 4,
    visibilityRatio: 0.5,
    tileSources: {
      width: slide.width, height: slide.height, tileSize: slide.tile, tileOverlap: 0, minLevel: 0, maxLevel: last,
      getTileUrl: (level, x, y) => slide.tiles[`${level}_${x}_${y}`],
    },
  });

  const opacity = document.getElementById("opacity");
  let shown = null;
  const lay = (key) => {
    if (shown) viewer.world.removeItem(shown);
    shown = null;
    document.body.dataset.map = "";
    if (!key) return;
    viewer.addTiledImage({
      tileSource: { type: "image", url: slide.maps[key], buildPyramid: false },
      x: 0, y: 0, width: 1, opacity: opacity.value / 100,
      success: (event) => { shown = event.item; document.body.dataset.map = key; },
    });
  };
  document.getElementById("maps").addEventListener("change", (event) => lay(event.target.value));
  opacity.addEventListener("input", () => shown && shown.setOpacity(opacity.value / 100));
  document.getElementById("closer").onclick = () => viewer.viewport.zoomBy(1.6).applyConstraints();
  document.getElementById("farther").onclick = () => viewer.viewport.zoomBy(1 / 1.6).applyConstraints();
  document.getElementById("whole").onclick = () => viewer.viewport.goHome();

  // A bar of a round length, at most a quarter of the picture wide.
  const bar = document.getElementById("scale");
  const measure = () => {
    const wide = document.getElementById("slide").clientWidth;
    const micrometres = slide.wide / (viewer.viewport.getZoom(true) * wide); // a pixel of the screen
    const most = micrometres * wide / 4;
    const ten = 10 ** Math.floor(Math.log10(most));
    const length = ten * [5, 2, 1].find((times) => times * ten <= most);
    bar.hidden = false;
    bar.firstElementChild.textContent = length >= 1000 ? `${length / 1000} mm` : `${length} µm`;
    bar.lastElementChild.style.width = `${length / micrometres}px`;
  };
  viewer.addHandler("open", () => { document.body.dataset.open = "yes"; });
  viewer.addHandler("update-viewport", measure);
})();
