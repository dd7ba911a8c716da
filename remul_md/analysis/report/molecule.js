/* The 3D view: frames, errors as colours, and the controls. Reads #data; scene.js draws. */
(function () {
  "use strict";
  const run = JSON.parse(document.getElementById("data").textContent).molecule;
  const canvas = document.getElementById("scene");
  const context = canvas.getContext("2d");
  const slider = document.getElementById("frame");
  const tested = run.tested.length > 0;
  const overlay = document.getElementById("errors"); // errors as colours; there where any are known
  // Cividis: from dark blue to yellow, the same for all kinds of colour vision, and ordered in grey too.
  const scale = ["#00224e", "#213b6e", "#4c556c", "#6c6e72", "#8e8978", "#b2a570", "#d9c55c", "#fee838"].map(rgb);
  const elements = { H: "#e8e8e8", C: "#565b60", N: "#3b62c4", O: "#c8352b", S: "#d8b13a", P: "#d97b29", F: "#5aa34d" };
  const largest = tested ? Math.max.apply(null, run.atom_error_meV_per_A.map((row) => Math.max.apply(null, row))) : 0;
  const labels = run.symbols.map((symbol, atom) => symbol + atom);
  const reach = 0.6 + run.positions_A.reduce((most, frame) =>
    frame.reduce((r, p) => Math.max(r, Math.hypot(p[0], p[1], p[2])), most), 0);
  const start = run.first_view; // the two largest axes in the plane
  const view = { rotation: start, zoom: 1, reach: reach, radii: run.radii_A, width: 0, height: 0 };
  let places = [];
  let picked = null;
  let playing = null;

  function rgb(hex) {
    return [1, 3, 5].map((k) => parseInt(hex.slice(k, k + 2), 16));
  }

  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  function onScale(value) {
    const at = Math.min(Math.max(largest > 0 ? value / largest : 0, 0), 1) * (scale.length - 1);
    const low = Math.min(Math.floor(at), scale.length - 2);
    return [0, 1, 2].map((k) => scale[low][k] + (at - low) * (scale[low + 1][k] - scale[low][k]));
  }

  function number(value) {
    return value.toPrecision(2).replace(/^(-?\d+)e.*$/, (text) => String(Number(text)));
  }

  /* Row of the errors to show: this frame's, or those of the tested frame nearest in time. */
  function nearest(frame) {
    let best = 0;
    run.tested.forEach(function (place, row) {
      if (Math.abs(run.time_ps[place] - run.time_ps[frame]) < Math.abs(run.time_ps[run.tested[best]] - run.time_ps[frame])) {
        best = row;
      }
    });
    return best;
  }

  function draw() {
    const frame = Number(slider.value);
    const row = tested ? nearest(frame) : -1;
    const errors = tested ? run.atom_error_meV_per_A[row] : [];
    const order = errors.map((_, atom) => atom).sort((a, b) => errors[b] - errors[a]);
    const ratio = window.devicePixelRatio || 1;
    [view.width, view.height] = [canvas.clientWidth, canvas.clientHeight];
    if (canvas.width !== Math.round(view.width * ratio) || canvas.height !== Math.round(view.height * ratio)) {
      [canvas.width, canvas.height] = [Math.round(view.width * ratio), Math.round(view.height * ratio)];
    }
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    places = Scene.draw(context, {
      positions: run.positions_A[frame],
      fills: run.symbols.map((symbol, atom) =>
        overlay && overlay.checked ? onScale(errors[atom]) : rgb(elements[symbol] || "#a879b8")),
      labels: labels,
      bonds: Scene.bonds(run.positions_A[frame], run.radii_A, run.bond_scale),
      worst: tested ? order[0] : null,
      picked: picked,
    }, view, {
      edge: colour("--soft"), stick: colour("--line"), accent: colour("--accent"), ink: colour("--ink"),
      family: getComputedStyle(document.getElementById("picked")).fontFamily,
    });
    const own = tested && run.tested[row] === frame;
    document.getElementById("moment").textContent = run.time_ps[frame].toFixed(3) + " ps, frame "
      + run.frames[frame] + " of " + run.n_frames
      + (!tested ? "" : own ? ": measured in this frame" : ": errors of " + run.time_ps[run.tested[row]].toFixed(3) + " ps");
    if (picked !== null) {
      document.getElementById("picked").textContent = labels[picked]
        + (tested ? ": rotational error " + number(errors[picked]) + " meV/Å" : "");
    }
    if (tested) fillTable(order.slice(0, 3), errors);
    canvas.dataset.frame = String(frame);
  }

  function fillTable(atoms, errors) {
    const body = document.querySelector("#worst-atoms tbody");
    body.replaceChildren(...atoms.map(function (atom) {
      const line = document.createElement("tr");
      [labels[atom], number(errors[atom])].forEach(function (text) {
        line.appendChild(document.createElement("td")).textContent = text;
      });
      return line;
    }));
  }

  function drawScale() {
    if (!tested) return;
    const bar = document.createElement("div");
    bar.className = "bar";
    bar.style.background = "linear-gradient(to right, " + scale.map((c) => "rgb(" + c.join(",") + ")").join(", ") + ")";
    const ticks = document.createElement("div");
    ticks.className = "ticks";
    [0, 0.5, 1].forEach(function (part) {
      ticks.appendChild(document.createElement("span")).textContent = part === 0 ? "0" : number(part * largest);
    });
    const title = document.createElement("div");
    title.textContent = "rotational error of an atom, meV/Å";
    document.getElementById("scale").append(title, bar, ticks);
  }

  function show(frame) {
    slider.value = String(Math.min(Math.max(frame, 0), run.frames.length - 1));
    draw();
  }

  function play(on) {
    document.getElementById("play").textContent = on ? "❚❚ Pause" : "▶ Play";
    window.clearInterval(playing);
    playing = on ? window.setInterval(() => show((Number(slider.value) + 1) % run.frames.length), 50) : null;
  }

  function turn(right, down) {
    view.rotation = Scene.turnedFurther(view.rotation, right, down);
    draw();
  }

  function zoom(factor) {
    view.zoom = Math.min(Math.max(view.zoom * factor, 0.3), 8);
    draw();
  }

  /* The atom under a pointer, the nearest to the reader first. */
  function pick(event) {
    const box = canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    let found = null;
    places.forEach(function (at, atom) {
      if (Math.hypot(at.x - x, at.y - y) <= Math.max(at.radius, 12) && (found === null || at.z > places[found].z)) {
        found = atom;
      }
    });
    if (found !== null && found !== picked) {
      picked = found;
      draw();
    }
  }

  const pointers = new Map();
  canvas.addEventListener("pointerdown", function (event) {
    pointers.set(event.pointerId, [event.clientX, event.clientY]);
    canvas.setPointerCapture(event.pointerId);
    pick(event);
  });
  canvas.addEventListener("pointermove", function (event) {
    const before = pointers.get(event.pointerId);
    if (!before) {
      pick(event);
      return;
    }
    const now = [event.clientX, event.clientY];
    if (pointers.size === 1) {
      turn(0.01 * (now[0] - before[0]), 0.01 * (now[1] - before[1]));
    } else {
      const other = [...pointers].find(([id]) => id !== event.pointerId)[1];
      const apart = (at) => Math.max(Math.hypot(at[0] - other[0], at[1] - other[1]), 1);
      zoom(apart(now) / apart(before));
    }
    pointers.set(event.pointerId, now);
  });
  ["pointerup", "pointercancel"].forEach((name) =>
    canvas.addEventListener(name, (event) => pointers.delete(event.pointerId)));
  canvas.addEventListener("wheel", function (event) {
    if (!event.ctrlKey) return; // the page scrolls
    event.preventDefault();
    zoom(Math.exp(-0.002 * event.deltaY));
  }, { passive: false });
  canvas.addEventListener("keydown", function (event) {
    const keys = {
      ArrowLeft: () => turn(-0.15, 0), ArrowRight: () => turn(0.15, 0),
      ArrowUp: () => turn(0, -0.15), ArrowDown: () => turn(0, 0.15),
      "+": () => zoom(1.2), "=": () => zoom(1.2), "-": () => zoom(1 / 1.2),
      PageDown: () => show(Number(slider.value) + 1), PageUp: () => show(Number(slider.value) - 1),
      " ": () => play(playing === null),
    };
    if (keys[event.key] && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      keys[event.key]();
    }
  });
  slider.addEventListener("input", draw);
  if (overlay) {
    overlay.addEventListener("change", function () {
      document.getElementById("scale").hidden = !overlay.checked;
      draw();
    });
  }
  document.getElementById("play").addEventListener("click", () => play(playing === null));
  document.getElementById("home").addEventListener("click", function () {
    [view.rotation, view.zoom] = [start, 1];
    draw();
  });
  if (tested) {
    document.getElementById("worst-frame").addEventListener("click", function () {
      const mean = (row) => row.reduce((sum, value) => sum + value, 0);
      const sums = run.atom_error_meV_per_A.map(mean);
      play(false);
      show(run.tested[sums.indexOf(Math.max.apply(null, sums))]);
    });
  }
  document.addEventListener("show-time", function (event) {
    const gaps = run.time_ps.map((time) => Math.abs(time - event.detail));
    play(false);
    show(gaps.indexOf(Math.min.apply(null, gaps)));
  });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  new ResizeObserver(draw).observe(canvas);
  drawScale();
  draw();
})();
