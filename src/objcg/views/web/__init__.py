"""``objcg web``: the live view in a browser on this machine.

`stream.py` makes what the page shows of samples, and knows nothing of HTTP; `guard.py` decides who
is answered; `app.py` is what there is to ask for; `serve.py` runs it until a signal. The page is
`page.html`, `page.css` and `page.js`, with the style of a report below it.
"""
