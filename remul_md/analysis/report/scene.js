/* Spheres and sticks on a canvas, sorted by depth; knows nothing of frames or errors. `Scene` is read by molecule.js. */
const Scene = (function () {
  "use strict";
  const PERSPECTIVE = 4; // distance of the eye in sizes of the molecule

  /* Of the sphere that stands for an atom, Angstrom. */
  function ballRadius(covalent) {
    return 0.25 + 0.3 * covalent;
  }

  function rotated(rotation, point) {
    return rotation.map(function (row) {
      return row[0] * point[0] + row[1] * point[1] + row[2] * point[2];
    });
  }

  /* The rotation by angles about the axes of the screen, after what was rotated before. */
  function turnedFurther(rotation, right, down) {
    const [cx, sx, cy, sy] = [Math.cos(down), Math.sin(down), Math.cos(right), Math.sin(right)];
    const step = [[cy, sx * sy, cx * sy], [0, cx, -sx], [-sy, sx * cy, cx * cy]];
    return step.map(function (row) {
      return [0, 1, 2].map(function (k) {
        return row[0] * rotation[0][k] + row[1] * rotation[1][k] + row[2] * rotation[2][k];
      });
    });
  }

  /* Pairs closer than their radii allow, as bond_pairs finds them: a bond that breaks is no longer drawn. */
  function bonds(positions, radii, scale) {
    const found = [];
    for (let i = 0; i < positions.length; i++) {
      for (let j = i + 1; j < positions.length; j++) {
        const reach = scale * (radii[i] + radii[j]);
        const [x, y, z] = [0, 1, 2].map((k) => positions[i][k] - positions[j][k]);
        if (x * x + y * y + z * z < reach * reach) found.push([i, j]);
      }
    }
    return found;
  }

  /* Where each atom lies on the canvas: {x, y, z, radius}, in CSS pixels; z towards the reader, in Angstrom. */
  function project(positions, view) {
    const size = 0.5 * Math.min(view.width, view.height);
    return positions.map(function (position, atom) {
      const [x, y, z] = rotated(view.rotation, position);
      const scale = (view.zoom * size / view.reach) * PERSPECTIVE * view.reach / (PERSPECTIVE * view.reach - z);
      return {
        x: 0.5 * view.width + scale * x,
        y: 0.5 * view.height - scale * y,
        z: z,
        radius: scale * ballRadius(view.radii[atom]),
        ball: ballRadius(view.radii[atom]),
        scale: scale,
      };
    });
  }

  /* From surface to surface: a stick to the centre would be drawn over the sphere behind it. */
  function stick(context, from, to, colours) {
    const scale = 0.5 * (from.scale + to.scale);
    const length = Math.hypot((to.x - from.x) / scale, (to.y - from.y) / scale, to.z - from.z);
    const [start, end] = [0.9 * from.ball / length, 1 - 0.9 * to.ball / length];
    if (!(end > start)) return;
    const along = (part) => [from.x + part * (to.x - from.x), from.y + part * (to.y - from.y)];
    context.lineCap = "butt";
    [[0.2, colours.edge], [0.14, colours.stick]].forEach(function ([width, colour]) {
      context.strokeStyle = colour;
      context.lineWidth = width * scale;
      context.beginPath();
      context.moveTo(...along(start));
      context.lineTo(...along(end));
      context.stroke();
    });
  }

  function sphere(context, at, fill, label, colours) {
    const light = context.createRadialGradient(
      at.x - 0.35 * at.radius, at.y - 0.35 * at.radius, 0.1 * at.radius, at.x, at.y, at.radius);
    const shade = (f) => "rgb(" + fill.map((c) => Math.round(f > 0 ? c + (255 - c) * f : c * (1 + f))).join(",") + ")";
    light.addColorStop(0, shade(0.35));
    light.addColorStop(0.5, shade(0));
    light.addColorStop(1, shade(-0.25));
    context.fillStyle = light;
    context.strokeStyle = colours.edge;
    context.lineWidth = 1;
    context.beginPath();
    context.arc(at.x, at.y, at.radius, 0, 2 * Math.PI);
    context.fill();
    context.stroke();
    if (at.radius < 6) return;
    context.fillStyle = 0.3 * fill[0] + 0.59 * fill[1] + 0.11 * fill[2] > 130 ? "#000" : "#fff";
    context.font = "600 " + Math.min(0.8 * at.radius, 15).toFixed(1) + "px " + colours.family;
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.fillText(label, at.x, at.y);
  }

  function ring(context, at, colour, dash) {
    context.strokeStyle = colour;
    context.lineWidth = 2.5;
    context.setLineDash(dash);
    context.beginPath();
    context.arc(at.x, at.y, at.radius + 4, 0, 2 * Math.PI);
    context.stroke();
    context.setLineDash([]);
  }

  /* Draw from the back to the front. atoms: {positions, fills, labels, bonds, worst, picked}. */
  function draw(context, atoms, view, colours) {
    const places = project(atoms.positions, view);
    const parts = places.map((at, atom) => ({ z: at.z, atom: atom }));
    // A stick lies behind the nearer of its atoms, and before the other.
    atoms.bonds.forEach(([i, j]) => parts.push({ z: 0.5 * (places[i].z + places[j].z) - 0.01, bond: [i, j] }));
    parts.sort((a, b) => a.z - b.z);
    context.clearRect(0, 0, view.width, view.height);
    parts.forEach(function (part) {
      if (part.bond) {
        stick(context, places[part.bond[0]], places[part.bond[1]], colours);
        return;
      }
      const at = places[part.atom];
      sphere(context, at, atoms.fills[part.atom], atoms.labels[part.atom], colours);
      if (part.atom === atoms.worst) ring(context, at, colours.accent, [5, 4]);
      if (part.atom === atoms.picked) ring(context, at, colours.ink, []);
    });
    return places;
  }

  return { bonds: bonds, draw: draw, turnedFurther: turnedFurther };
})();
