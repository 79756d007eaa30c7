//! `stacker report`: a page about a build, made of real builds and looked at in a real browser.

mod support;

use std::fs;

use serde_json::{Value, json};
use support::browser::Browser;
use support::space::{Space, for_each_user};

const EVIL: &str = "</pre></script><script>document.title=\"owned\"</script>";

/// Builds twice: all of it, then what follows from an edit, where one layer fails with an output that is no good.
fn build(space: &Space) {
    let write = |number: u8, script: &str| {
        space.write("src/file", format!("{number}\n"));
        space.stackerfile(&format!(
            "lib: {{from: {{type: built, tag: base}}, build_only: true, imports: [src], run: 'cp stacker/imports/src/file /'}}
app: {{from: {{type: built, tag: base}}, imports: [{{path: 'stacker://lib/file', dest: /}}]}}
other: {{from: {{type: built, tag: app}}, run: 'echo other > /other'}}
evil:
  from: {{type: built, tag: base}}
  imports: [src]
  run: |
    {script}
above: {{from: {{type: built, tag: evil}}}}
"
        ));
    };
    write(1, "echo fine");
    space.build(&[]);
    let colours = "\\033[1;31merror\\033[0m: \\007\\033[2J\\n10%%\\r100%%\\n";
    write(2, &format!("printf '{EVIL}\\n{colours}'; exit 1"));
    space.stacker(&["build", "--keep-going"]).ends_with(1);
}

#[test]
fn the_page_has_the_build_without_scripts_and_network() {
    for_each_user(|space| {
        build(space);
        let told = space.stacker(&["report"]).ends_with(0).stdout;
        assert_eq!(told, "build 2: report.html\n");
        let page = fs::read_to_string(space.path("report.html")).unwrap();
        assert!(!page.contains(EVIL) && page.matches("<script").count() == 2, "a log has become a script");
        assert!(!page.contains(" src=") && !page.contains("url("), "the page asks for more");
        let log = "&lt;/pre&gt;&lt;/script&gt;&lt;script&gt;document.title=&quot;owned&quot;&lt;/script&gt;\n\
                   <span class=\"a1 bold\">error</span>: \\x07\n100%\n";
        assert!(page.contains(log), "{}", page.split_once("<details class=\"log").unwrap().1);
        for text in ["src/file changed", "1 failed, 3 built, 1 hit, 1 skipped", "Critical path"] {
            assert!(page.contains(text), "{text} is not in the page");
        }
        // The first build is there still, and pages go where they are wanted.
        let first = space.stacker(&["report", "1", "-o", "-"]).ends_with(0).stdout;
        assert!(first.contains("<title>Build 1: 6 layers: 5 built, 1 hit</title>"));
        space.stacker(&["build", "lib"]).ends_with(0);
        assert!(space.stacker(&["report", "-o", "-"]).ends_with(0).stdout.contains("Nothing ran"));
        space.stacker(&["report", "77"]).ends_with(2).says("there is no build 77; the last one is 3");
    });
    Space::new().stacker(&["report"]).ends_with(2).says("there is no cache");
}

#[test]
fn a_browser_shows_it() {
    let space = Space::new();
    build(&space);
    space.stacker(&["report"]).ends_with(0);
    let page = space.path("report.html");
    let Some(mut browser) = Browser::start() else { return };
    let count = |browser: &mut Browser, selector: &str| {
        let seen =
            format!("[...document.querySelectorAll({selector:?})].filter(it => it.getClientRects().length).length");
        browser.value(&seen).as_u64().unwrap()
    };
    browser.open(&page);
    assert_eq!(browser.value("document.title"), "Build 2: 6 layers: 1 failed, 3 built, 1 hit, 1 skipped");
    for (selector, wanted) in
        [("#layers tbody tr", 6), ("#graph .node", 6), ("article", 0), (".timeline .step.failed", 1)]
    {
        assert_eq!(count(&mut browser, selector), wanted, "{selector}");
    }
    assert!(count(&mut browser, ".timeline .step.critical") > 0 && count(&mut browser, ".treemap .tile") > 0);
    on_a_phone_in_print_and_without_scripts(&mut browser, &page, &count);
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

fn on_a_phone_in_print_and_without_scripts(
    browser: &mut Browser,
    page: &std::path::Path,
    count: &dyn Fn(&mut Browser, &str) -> u64,
) {
    for scheme in ["light", "dark"] {
        browser.medium("screen", scheme);
        browser.size((390, 844));
        assert_eq!(browser.value("document.documentElement.scrollWidth"), 390, "the page is wider than a phone");
        assert!(
            contrast(browser, "#layers tbody td.why") > 4.5 && contrast(browser, ".badge.failed") > 4.5,
            "{scheme}"
        );
    }
    browser.size((1280, 800));
    browser.medium("print", "dark");
    assert_eq!((count(browser, "nav"), count(browser, ".filters")), (0, 0));
    // What failed has its log on paper; what is a hit is in the table.
    assert_eq!((count(browser, "article.failed pre"), count(browser, "article.hit")), (1, 0));
    assert_eq!(browser.value("getComputedStyle(document.body).backgroundColor"), "rgb(255, 255, 255)");
    browser.medium("screen", "light");
    browser.scripts(false);
    browser.open(page);
    assert_eq!((count(browser, "article"), count(browser, "#layers tbody tr")), (6, 6));
    assert_eq!(count(browser, ".filters"), 0, "what works by the script alone");
    browser.scripts(true);
    browser.open(page);
}

/// Of a text and what is behind it, by the formula of WCAG.
fn contrast(browser: &mut Browser, selector: &str) -> f64 {
    let script = format!(
        "(() => {{ let at = document.querySelector({selector:?}); const light = (text) => {{
            const [r, g, b] = text.match(/[\\d.]+/g).map(Number).map(v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
            return .2126 * r + .7152 * g + .0722 * b; }};
          const text = light(getComputedStyle(at).color);
          while (getComputedStyle(at).backgroundColor === 'rgba(0, 0, 0, 0)') at = at.parentElement;
          const behind = light(getComputedStyle(at).backgroundColor);
          return (Math.max(text, behind) + .05) / (Math.min(text, behind) + .05); }})()"
    );
    browser.value(&script).as_f64().unwrap()
}

#[test]
fn it_is_used_by_keyboard() {
    let space = Space::new();
    build(&space);
    space.stacker(&["report"]).ends_with(0);
    let Some(mut browser) = Browser::start() else { return };
    browser.open(&space.path("report.html"));
    let focus = |browser: &mut Browser| browser.value("document.activeElement.textContent.trim()");
    browser.press(&["Tab"]);
    assert_eq!(focus(&mut browser), "Skip to the table of layers");
    // Each picture is one stop, and so are the links of the table.
    let part = "document.activeElement.closest('section, nav, header, aside')?.id || document.activeElement.tagName";
    let mut stops: Vec<Value> = Vec::new();
    for _ in 0..60 {
        browser.press(&["Tab"]);
        let stop = browser.value(part);
        if stop == "BODY" {
            break;
        }
        stops.push(stop);
    }
    let stops_in = |id: &str| stops.iter().filter(|stop| **stop == json!(id)).count();
    assert_eq!((stops_in("graph"), stops_in("sizes")), (1, 1), "{stops:?}");
    assert!(stops.len() < 50 && stops_in("timeline") > 0 && stops_in("layers") > 0, "{stops:?}");
    // Arrows go through the table, Enter shows a layer, Escape goes back to where it was asked for.
    browser.value("document.querySelector('#layers tbody a').focus()");
    browser.press(&["ArrowDown"]);
    assert_eq!(focus(&mut browser), "lib");
    browser.press(&["End", "Home", "ArrowDown", "Enter"]);
    assert_eq!((focus(&mut browser), browser.value("location.hash")), (json!("lib built"), json!("#layer-1")));
    let seen =
        "[...document.querySelectorAll('article')].filter(it => it.getClientRects().length).map(it => it.id).join()";
    assert_eq!(browser.value(seen), "layer-1");
    browser.press(&["Escape"]);
    assert_eq!((focus(&mut browser), browser.value(seen)), (json!("lib"), json!("")));
    // From the base to the right in the graph.
    browser.value("document.querySelector('#graph a[data-layer=\"0\"]').focus()");
    browser.press(&["ArrowRight"]);
    assert!(browser.value("document.activeElement.getBoundingClientRect().left").as_f64() > Some(100.0));
    assert_ne!(browser.value("document.activeElement.dataset.layer"), "0");
    // The filter, and sorting.
    browser.value("document.querySelector('input[type=search]').focus()");
    browser.type_text("FAILED");
    let rows = "[...document.querySelectorAll('#layers tbody tr:not([hidden])')].map(row => row.querySelector('a').textContent)";
    assert_eq!(browser.value(rows), json!(["evil"]));
    assert_eq!(browser.value("document.querySelector('output').textContent"), "1 of 6 layers");
    browser.value(
        "(i => { i.value = ''; i.dispatchEvent(new Event('input', {bubbles: true})); })(document.activeElement)",
    );
    browser.value("document.querySelector('#layers thead button').focus()");
    browser.press(&["Enter"]);
    assert_eq!(browser.value(rows), json!(["above", "app", "base", "evil", "lib", "other"]));
    assert_eq!(browser.complaints(), Vec::<String>::new());
}
