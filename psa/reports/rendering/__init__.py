"""One table or page value to Markdown, LaTeX, CSV, HTML and PDF."""
