// A person at a browser: `node browser.mjs SCENARIO URL FOLDER`, with Debian's Chromium. Ends with 1 and words if anything is
// not as it should be. The server has an admin `ann` and an endpoint number 1.
import { createRequire } from 'node:module';
import { mkdirSync, readFileSync } from 'node:fs';

const [, , scenario, base, folder] = process.argv;
const require = createRequire(process.env.CERTBUS_NODE_MODULES + '/');
const { chromium } = require('playwright-core');
const axe = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');
const password = 'correct horse battery';
const problems = [];

function check(is, words) { if (!is) problems.push(words); }

const browser = await chromium.launch({
  executablePath: process.env.CERTBUS_CHROMIUM,
  args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking'],
});

async function at(options) {
  // axe is put into pages from here: the server's policy would refuse it.
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, bypassCSP: scenario === 'axe', ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(15000);
  page.on('pageerror', (error) => problems.push(`script: ${error}`));
  page.on('console', (message) => { if (message.type() === 'error' && !message.text().includes('400 (Bad Request)')) problems.push(`console: ${message.text()}`); });
  return page;
}

async function login(page) {
  await page.goto(base + '/');
  check(page.url() === base + '/login', `signed out, / leads to ${page.url()}`);
  await page.fill('#name', 'ann');
  await page.fill('#password', password);
  await page.click('button.main');
  await page.waitForURL(base + '/');
}

const pages = {
  dashboard: '/', endpoints: '/endpoints', endpoint: '/endpoints/1', 'endpoint-form': '/endpoints/new', import: '/endpoints/import',
  managed: '/managed', order: '/managed/new', alerts: '/alerts', tasks: '/tasks', settings: '/settings', audit: '/audit', users: '/users', tokens: '/tokens', account: '/account',
};

const scenarios = {
  // From the login to a poll's result, which comes by itself.
  async person() {
    const page = await at({});
    await login(page);
    await page.click('text=Endpoints');
    await page.click('text=Watch an endpoint');
    await page.fill('#host', '127.0.0.1');
    await page.fill('#port', '9');
    await page.fill('#name', 'by hand');
    await page.click('button.main');
    await page.waitForSelector('text=is watched');
    await page.waitForSelector('#nodes >> text=nothing listens there');
    const first = await page.textContent('#nodes');
    await page.click('text=Poll now');
    await page.waitForSelector('text=polled just now');
    await page.waitForFunction((first) => document.querySelector('#nodes').textContent !== first, first);
    check(page.url().match(/\/endpoints\/\d+$/), 'nothing was loaded again');
    page.once('dialog', (dialog) => dialog.accept());
    await page.click('text=Remove');
    await page.waitForSelector('text=is removed');
    await page.click('text=Log out');
    await page.waitForURL(base + '/login');
  },

  // The same without a script.
  async plain() {
    const page = await at({ javaScriptEnabled: false });
    await login(page);
    await page.goto(base + '/endpoints/new');
    await page.fill('#host', '127.0.0.1');
    await page.fill('#port', '70000');
    await page.click('button.main');
    await page.waitForSelector('#port-error');
    check((await page.inputValue('#port')) === '70000', 'what was typed is still there');
    await page.fill('#port', '11');
    await page.click('button.main');
    await page.waitForSelector('text=is watched');
    const seen = async () => { await page.reload(); return (await page.textContent('#nodes')).includes('nothing listens there'); };
    for (let turn = 0; turn < 50 && !(await seen()); turn++) await page.waitForTimeout(200);
    check(await seen(), 'a poll ends');
    await page.click('text=Poll now');
    await page.waitForSelector('text=A poll is asked for');
    await page.goto(base + '/endpoints');
    await page.check('tbody input[name=id] >> nth=0');
    await page.click('button[value=pause]');
    await page.waitForSelector('text=1 endpoint paused');
  },

  // No mouse.
  async keyboard() {
    const page = await at({});
    await page.goto(base + '/login');
    await page.keyboard.type('ann');
    await page.keyboard.press('Tab');
    await page.keyboard.type(password);
    await page.keyboard.press('Enter');
    await page.waitForURL(base + '/');
    const go = async (words) => {
      for (let turn = 0; turn < 60; turn++) {
        await page.keyboard.press('Tab');
        const focused = await page.evaluate(() => {
          const here = document.activeElement;
          const outline = getComputedStyle(here).outlineStyle;
          return { text: (here.textContent || here.id || '').trim(), id: here.id, outline };
        });
        if (focused.text === words || focused.id === words) {
          check(focused.outline !== 'none', `${words}: one sees where one is`);
          return;
        }
      }
      problems.push(`${words} cannot be reached by keyboard`);
    };
    await go('Skip to the content');
    await go('Endpoints');
    await page.keyboard.press('Enter');
    await page.waitForURL(base + '/endpoints');
    await go('Watch an endpoint');
    await page.keyboard.press('Enter');
    await page.waitForURL(base + '/endpoints/new');
    await page.keyboard.type('127.0.0.1');
    await go('port');
    await page.keyboard.type('12');
    await page.keyboard.press('Enter');
    await page.waitForSelector('text=is watched');
    await go('Poll now');
    await page.keyboard.press('Enter');
    await page.waitForSelector('text=polled just now');
  },

  // Every page, light and dark, wide and on a phone: nothing that axe finds, nothing that must be scrolled sideways.
  async axe() {
    const state = await at({});
    await login(state);
    await state.goto(base + '/endpoints/1');
    pages.certificate = new URL(await state.getAttribute('a[href^="/certificates/"]', 'href'), base).pathname;
    await state.goto(base + '/managed');
    pages['managed-one'] = await state.getAttribute('a.name', 'href');
    const storageState = await state.context().storageState();
    mkdirSync(folder, { recursive: true });
    for (const [kind, options] of Object.entries({
      wide: { colorScheme: 'light' },
      dark: { colorScheme: 'dark' },
      phone: { colorScheme: 'light', viewport: { width: 390, height: 844 } },
    })) {
      const page = await at({ storageState, ...options });
      for (const [name, path] of [...Object.entries(pages), ['login', null]]) {
        if (path === null) await page.context().clearCookies();
        const response = await page.goto(base + (path ?? '/login'));
        check(response.status() === 200, `${path}: ${response.status()}`);
        await page.screenshot({ path: `${folder}/${name}-${kind}.png`, fullPage: true });
        const room = await page.evaluate(() => document.scrollingElement.scrollWidth - innerWidth);
        check(room <= 0, `${name}, ${kind}: ${room} pixels too wide`);
        await page.evaluate(axe);
        const found = await page.evaluate(async () => (await window.axe.run()).violations.map(
          (one) => `${one.id}: ${one.help}: ${one.nodes.slice(0, 3).map((node) => node.html.slice(0, 160)).join(' | ')}`));
        found.forEach((words) => problems.push(`${name}, ${kind}: ${words}`));
      }
    }
  },
};

try {
  await scenarios[scenario]();
} catch (error) {
  problems.push(String(error));
}
await browser.close();
problems.forEach((words) => console.log(words));
process.exit(problems.length ? 1 : 0);
