import { evidenceOf, type System } from "./table.ts";

/** The table of systems as a page of Markdown: docs/systems.md. */
export function systemsPage(systems: readonly System[]): string {
  const rows = systems.map((system) => {
    const links = evidenceOf(system).map((path) => `[${path.split("/").at(-1)}](../${path})`);
    return `| ${system.name} | ${system.paper} | [${system.code}](../${system.code}) | ${links.join(", ")} |`;
  });
  const claims = systems.flatMap(({ name, claims = [] }) =>
    claims.map(
      ({ script, claims, found }) => `| ${name} | ${claims} | ${found} | [${script.split("/").at(-1)}](../${script}) |`,
    ),
  );
  const page = `# Systems

What is built, where, and what shows that it is right; \`oriel systems --markdown\` prints this page. A file of \`tests/golden/\` holds the
outputs and gradients of the reference implementation, made in float64 from weights that both sides fill by one rule; \`npm test\` compares.
Where ReLU or a maximum decides, rounding moves single gradients by up to 3 %; those networks are compared in float64 too, and agree to 1e-5.

| system | paper | code | shown by |
| --- | --- | --- | --- |
${rows.join("\n")}
`;
  if (claims.length === 0) return page;
  return `${page}
## Small experiments

CIFAR-10, micro models, equal budgets, three seeds. They show directions, not the papers' figures; where a claim does not show at this size,
the figures say so.

| system | the paper claims | found here | experiment |
| --- | --- | --- | --- |
${claims.join("\n")}
`;
}
