// Opens a report in a real Chromium, with a wide and a narrow window, light and dark. Fails on anything that the console
// says, on a request to anywhere, and if the page is wider than the window. Leaves a picture of each.
//
//     NODE_PATH=<folder with playwright-core> node check.mjs REPORT FOLDER
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const { chromium } = createRequire(`${process.env.NODE_PATH}/`)("playwright-core");
const [report, folder] = process.argv.slice(2);
const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync"],
});
const complaints = [];
for (const colorScheme of ["light", "dark"]) {
  for (const width of [1280, 400]) {
    const page = await browser.newPage({ colorScheme, viewport: { width, height: 900 } });
    const where = `${colorScheme}, ${width} pixels`;
    page.on("console", (message) => complaints.push(`${where}: console: ${message.text()}`));
    page.on("pageerror", (error) => complaints.push(`${where}: ${error}`));
    page.on("request", (request) => {
      if (!/^(file|data):/.test(request.url())) complaints.push(`${where}: asks for ${request.url()}`);
    });
    await page.goto(pathToFileURL(report).href);
    const seen = await page.evaluate(() => ({
      wide: document.documentElement.scrollWidth,
      plots: document.querySelectorAll("figure svg").length,
      rows: document.querySelectorAll("tbody tr").length,
      paper: getComputedStyle(document.body).backgroundColor,
    }));
    if (seen.wide > width) complaints.push(`${where}: ${seen.wide} pixels wide`);
    if (seen.plots < 7 || seen.rows < 10) complaints.push(`${where}: ${seen.plots} plots, ${seen.rows} rows`);
    const light = Number(seen.paper.match(/\d+/)[0]) > 127;
    if (light !== (colorScheme === "light")) complaints.push(`${where}: the paper is ${seen.paper}`);
    await page.screenshot({ path: `${folder}/report-${colorScheme}-${width}.png`, fullPage: true });
    await page.close();
  }
}
await browser.close();
console.log(complaints.length ? complaints.join("\n") : "the report is fine");
process.exit(complaints.length ? 1 : 0);
