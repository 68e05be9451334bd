// Bundles the page's scripts and copies MathJax: node build.mjs, after npm ci. The result is in static/.
import { build } from "esbuild";
import { cpSync, readFileSync, rmSync } from "node:fs";

rmSync("static", { recursive: true, force: true });

// anywidget is published as an AMD module; this gives it the `define` that it calls and nothing more.
const amd = {
  name: "anywidget-amd",
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /^virtual:anywidget$/ }, () => ({ path: "anywidget", namespace: "amd" }));
    onLoad({ filter: /.*/, namespace: "amd" }, () => ({
      resolveDir: ".",
      contents:
        "let factory; const define = (dependencies, made) => { factory = made; };\n" +
        readFileSync("node_modules/anywidget/dist/index.js", "utf8") +
        "\nexport default (base) => factory(base);",
    }));
  },
};

await build({
  entryPoints: { widgets: "src/page.js" },
  outdir: "static",
  bundle: true,
  minify: true,
  format: "iife",
  legalComments: "linked",
  logLevel: "warning",
  plugins: [amd],
  loader: { ".svg": "dataurl" },
  // ipywidgets typesets labels through MathJax 2, which the page does not have: it is told of none.
  define: { "process.env.NODE_ENV": '"production"', global: "window", "window.MathJax": "undefined" },
});

const mathjax = "node_modules/mathjax/es5";
for (const part of ["tex-mml-chtml.js", "output/chtml/fonts/woff-v2", "input/tex/extensions"]) {
  cpSync(`${mathjax}/${part}`, `static/mathjax/${part}`, { recursive: true });
}
