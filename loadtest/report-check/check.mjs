// Opens a report in Chromium, in a wide and a narrow window, with the light and the dark colour scheme. Fails on any console
// message, on any request to the network, if the page is wider than the window, if a plot or a row is missing, and if the
// background does not follow the colour scheme. Saves a screenshot of each view.
//
//     NODE_PATH=<node_modules with playwright-core> node check.mjs REPORT SCREENSHOT_FOLDER
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const PLOTS = 7;
const ROWS_MIN = 10;

const { chromium } = createRequire(`${process.env.NODE_PATH}/`)("playwright-core");
const [report, folder] = process.argv.slice(2);
const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync"],
});
const errors = [];
for (const colorScheme of ["light", "dark"]) {
  for (const width of [1280, 400]) {
    const page = await browser.newPage({ colorScheme, viewport: { width, height: 900 } });
    const view = `${colorScheme}, ${width} px`;
    page.on("console", (message) => errors.push(`${view}: console message: ${message.text()}`));
    page.on("pageerror", (error) => errors.push(`${view}: ${error}`));
    page.on("request", (request) => {
      if (!/^(file|data):/.test(request.url())) errors.push(`${view}: request to ${request.url()}`);
    });
    await page.goto(pathToFileURL(report).href);
    const found = await page.evaluate(() => ({
      width: document.documentElement.scrollWidth,
      plots: document.querySelectorAll("figure svg").length,
      rows: document.querySelectorAll("tbody tr").length,
      background: getComputedStyle(document.body).backgroundColor,
    }));
    if (found.width > width) errors.push(`${view}: the page is ${found.width} px wide`);
    if (found.plots < PLOTS) errors.push(`${view}: ${found.plots} plots instead of ${PLOTS}`);
    if (found.rows < ROWS_MIN) errors.push(`${view}: ${found.rows} rows, expected at least ${ROWS_MIN}`);
    const isLight = Number(found.background.match(/\d+/)[0]) > 127;
    if (isLight !== (colorScheme === "light")) errors.push(`${view}: the background is ${found.background}`);
    await page.screenshot({ path: `${folder}/report-${colorScheme}-${width}.png`, fullPage: true });
    await page.close();
  }
}
await browser.close();
console.log(errors.length ? errors.join("\n") : "the report is correct");
process.exit(errors.length ? 1 : 0);
