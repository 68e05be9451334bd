// The moving part of an Explorer, in JupyterLab and in the built page: shows the frame and the sentence of the current
// stop, and gives the slider handles what ipywidgets leaves out: a name, and the stop's own text as their value.

function render({ model, el }) {
  const picture = document.createElement("div");
  picture.className = "tinytorch-frame";
  picture.setAttribute("role", "img");
  const sentence = document.createElement("p");
  sentence.className = "tinytorch-sentence";
  sentence.setAttribute("aria-live", "polite");
  sentence.style.margin = "0.5em 0";
  el.replaceChildren(picture, sentence);

  const shape = model.get("shape");
  const show = () => {
    const stop = shape.reduce((index, stops, axis) => index * stops + model.get(`position_${axis}`), 0);
    picture.innerHTML = model.get("frames")[stop];
    sentence.textContent = model.get("sentences")[stop];
    picture.setAttribute("aria-label", sentence.textContent);
  };
  shape.forEach((_, axis) => model.on(`change:position_${axis}`, show));
  show();
  return nameHandles(el, shape.length);
}

function nameHandles(el, count) {
  const observers = [];
  let stopped = false;
  // The box attaches its children when all of them are made: until then the sliders are not to be found from here.
  const find = () => {
    if (stopped) return;
    const sliders = [...(el.closest(".tinytorch-explorer")?.querySelectorAll(".widget-hslider, .widget-slider") ?? [])];
    const ready = sliders.filter((slider) => slider.querySelector("[role=slider]"));
    if (ready.length < count) requestAnimationFrame(find);
    else observers.push(...ready.map(nameHandle));
  };
  find();
  return () => {
    stopped = true;
    observers.forEach((observer) => observer.disconnect());
  };
}

function nameHandle(slider) {
  const handle = slider.querySelector("[role=slider]");
  const describe = () => {
    const wanted = {
      "aria-label": slider.querySelector(".widget-label").textContent,
      "aria-valuetext": slider.querySelector(".widget-readout").textContent,
    };
    for (const [name, value] of Object.entries(wanted)) {
      if (handle.getAttribute(name) !== value) handle.setAttribute(name, value);
    }
  };
  // The slider writes its rounded position over the text at every move, before or after the readout changes.
  const observer = new MutationObserver(describe);
  observer.observe(slider, {
    subtree: true, childList: true, characterData: true, attributes: true, attributeFilter: ["aria-valuetext"],
  });
  describe();
  return observer;
}

export default { render };
