// Markdown to DOM nodes. Text only ever enters as text nodes, so a script, a tag or an event handler in a reply is
// shown and never run; links lead only to http, https and mailto. Enough of Markdown for a chat, and no more.
thumbprint.markdown = (() => {
  const { el } = thumbprint;
  const INLINE = /(`+)([^`](?:.*?[^`])?)\1(?!`)|\*\*(\S(?:.*?\S)?)\*\*|__(\S(?:.*?\S)?)__(?!\w)|(?<![\w*])\*(\S(?:.*?\S)?)\*(?![\w*])|(?<!\w)_(\S(?:.*?\S)?)_(?!\w)|~~(\S(?:.*?\S)?)~~|\[([^\]\n]+)\]\((https?:\/\/[^\s)]+|mailto:[^\s)]+)\)|(https?:\/\/[^\s<>"')]+)/s;

  const link = (address, ...label) => el("a", { href: address, target: "_blank", rel: "noopener noreferrer nofollow" }, ...label);
  const inline = (text, depth = 0) => {
    const nodes = [];
    let rest = text;
    for (let found = depth < 6 && INLINE.exec(rest); found; found = INLINE.exec(rest)) {
      const [whole, , code, bold, bold2, italic, italic2, struck, label, address, bare] = found;
      if (found.index) nodes.push(rest.slice(0, found.index));
      const deeper = (part) => inline(part, depth + 1);
      if (code !== undefined) nodes.push(el("code", {}, code));
      else if (bold ?? bold2) nodes.push(el("strong", {}, ...deeper(bold ?? bold2)));
      else if (italic ?? italic2) nodes.push(el("em", {}, ...deeper(italic ?? italic2)));
      else if (struck) nodes.push(el("s", {}, ...deeper(struck)));
      else if (address) nodes.push(link(address, ...deeper(label)));
      else if (bare) nodes.push(link(bare, bare));
      rest = rest.slice(found.index + whole.length);
    }
    if (rest) nodes.push(rest);
    return nodes;
  };
  const broken = (lines) => lines.flatMap((line, i) => (i ? [el("br"), ...inline(line)] : inline(line)));

  const FENCE = /^\s*(```|~~~)/;
  const HEADING = /^(#{1,6})\s+(.+?)\s*#*\s*$/;
  const ITEM = /^(\s*)(?:[-*+•]|(\d{1,9})[.)])\s+(.*)$/;
  const QUOTE = /^\s*>\s?(.*)$/;
  const RULE = /^\s*([-*_])(?:\s*\1){2,}\s*$/;
  const starts = (line) => !line.trim() || FENCE.test(line) || HEADING.test(line) || ITEM.test(line) || QUOTE.test(line) || RULE.test(line);

  const list = (lines, at) => {
    const first = ITEM.exec(lines[at]);
    const depth = first[1].length;
    const node = el(first[2] ? "ol" : "ul", first[2] && first[2] !== "1" ? { start: first[2] } : {});
    while (at < lines.length) {
      const item = ITEM.exec(lines[at]);
      if (item && item[1].length > depth + 1 && node.lastChild) {
        const [inner, next] = list(lines, at);
        node.lastChild.append(inner);
        at = next;
      } else if (item && item[1].length >= depth && Boolean(item[2]) === Boolean(first[2])) {
        node.append(el("li", { dir: "auto" }, ...inline(item[3])));
        at += 1;
      } else if (!item && lines[at].trim() && /^\s{2,}/.test(lines[at]) && node.lastChild) {
        node.lastChild.append(el("br"), ...inline(lines[at].trim()));
        at += 1;
      } else if (!lines[at].trim() && ITEM.test(lines[at + 1] ?? "")) at += 1;
      else break;
    }
    return [node, at];
  };

  return (text) => {
    const lines = text.split("\n");
    const nodes = [];
    for (let at = 0; at < lines.length;) {
      const line = lines[at];
      const heading = HEADING.exec(line);
      if (!line.trim()) at += 1;
      else if (FENCE.test(line)) {
        const fence = FENCE.exec(line)[1];
        const code = [];
        for (at += 1; at < lines.length && !lines[at].trim().startsWith(fence); at += 1) code.push(lines[at]);
        at += 1;
        nodes.push(el("pre", { dir: "ltr", tabindex: "0" }, el("code", {}, code.join("\n"))));
      } else if (heading) { nodes.push(el(`h${Math.min(6, heading[1].length + 2)}`, { dir: "auto" }, ...inline(heading[2]))); at += 1; }
      else if (RULE.test(line)) { nodes.push(el("hr")); at += 1; }
      else if (QUOTE.test(line)) {
        const quoted = [];
        for (; at < lines.length && QUOTE.test(lines[at]); at += 1) quoted.push(QUOTE.exec(lines[at])[1]);
        nodes.push(el("blockquote", { dir: "auto" }, ...broken(quoted)));
      } else if (ITEM.test(line)) { const [node, next] = list(lines, at); nodes.push(node); at = next; }
      else {
        const words = [line];
        for (at += 1; at < lines.length && !starts(lines[at]); at += 1) words.push(lines[at]);
        nodes.push(el("p", { dir: "auto" }, ...broken(words)));
      }
    }
    return nodes;
  };
})();
