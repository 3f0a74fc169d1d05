// Stands in for Jupyter where no kernel is: each stored explorer takes the place of its picture.
for (const stored of document.querySelectorAll("script.sg-stored")) {
  const traits = JSON.parse(stored.textContent), still = stored.closest(".cell_output, figure").querySelector("img");
  const model = { get: (name) => traits[name], set: (name, value) => { traits[name] = value; }, on() {}, off() {}, save_changes() {} };
  const el = document.createElement("div");
  stored.after(el);
  render({ model, el });
  still.hidden = true;
}
