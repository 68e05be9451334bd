// Live ipywidgets 8 and anywidget in a static page: no kernel, no require.js, nothing from another host.
import * as base from "@jupyter-widgets/base";
import { ManagerBase } from "@jupyter-widgets/base-manager";
import * as controls from "@jupyter-widgets/controls";
import { Widget } from "@lumino/widgets";
import anywidget from "virtual:anywidget";
import "@lumino/widgets/style/index.css";
import "@jupyter-widgets/controls/css/labvariables.css";
import "@jupyter-widgets/controls/css/widgets-base.css";

const MODULES = {
  "@jupyter-widgets/base": base,
  "@jupyter-widgets/controls": controls,
  anywidget: anywidget(base),
};

const STATE = 'script[type="application/vnd.jupyter.widget-state+json"]';
const VIEW = 'script[type="application/vnd.jupyter.widget-view+json"]';

class PageManager extends ManagerBase {
  async loadClass(name, module) {
    const found = MODULES[module]?.[name];
    if (!found) throw new Error(`the book's widget runtime does not carry ${module}.${name}`);
    return found;
  }

  // Models ask for a kernel's comm and its list; there is none, and nothing is ever sent.
  async _create_comm() {
    return { comm_id: "", target_name: "", open: () => "", send: () => "", close: () => "", on_msg() {}, on_close() {} };
  }

  async _get_comm_info() {
    return {};
  }
}

async function show(manager, models, tag) {
  const { model_id } = JSON.parse(tag.textContent);
  const model = models.find((candidate) => candidate.model_id === model_id);
  if (!model) throw new Error(`the page has no state for the widget ${model_id}`);
  const place = document.createElement("div");
  place.className = "widget-subarea";
  tag.before(place);
  const view = await manager.create_view(model);
  Widget.attach(view.luminoWidget, place);
  if (tag.nextElementSibling?.className === "tinytorch-still") tag.nextElementSibling.remove();
}

async function main() {
  for (const state of document.querySelectorAll(STATE)) {
    const manager = new PageManager();
    const models = await manager.set_state(JSON.parse(state.textContent));
    for (const model of models) {
      model.comm_live = false;
      model.save_changes = () => {};
    }
    await Promise.all(
      [...document.querySelectorAll(VIEW)].map((tag) => show(manager, models, tag).catch((error) => console.error(error))),
    );
  }
  document.documentElement.dataset.widgets = "live";
}

main();
