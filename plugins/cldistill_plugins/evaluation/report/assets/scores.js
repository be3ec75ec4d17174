// The table of single effects: sorted and searched by DataTables, filtered by the form above it.
import DataTable from "datatables";
import { show } from "cldistill/viewer";

const form = document.getElementById("score-filters");
const table = new DataTable("#scores", {
  pageLength: 25,
  lengthMenu: [10, 25, 100, { label: "all", value: -1 }],
  order: [],
  autoWidth: false,
  language: { lengthMenu: "_MENU_ rows", emptyTable: "No effects", zeroRecords: "No row fits these filters" },
  layout: { topStart: null, topEnd: null, bottomStart: ["info", "pageLength"], bottomEnd: "paging" },
});

table.search.fixed("form", (_text, _data, index) => {
  const row = table.row(index).node();
  const { system, kind, family } = Object.fromEntries(new FormData(form));
  return (
    (!system || row.dataset.system === system) &&
    (!kind || row.dataset.kind === kind) &&
    (!family || row.dataset.families.split(" ").includes(family))
  );
});
form.addEventListener("input", () => table.search(form.elements.text.value).draw());
form.addEventListener("submit", (event) => event.preventDefault());

document.getElementById("scores").addEventListener("click", (event) => {
  const button = event.target.closest("button.look");
  if (button) show({ effect: button.dataset.effect, system: button.dataset.system });
});
