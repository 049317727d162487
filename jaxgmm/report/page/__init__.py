"""Documents as HTML, Markdown and JSON: sections, tables, figures and formulas of anything."""
