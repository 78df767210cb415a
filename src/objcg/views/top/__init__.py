"""``objcg top``: a full screen that shows the groups of a process, and steers them.

`model.py` is what is shown, `columns.py` how a row is written; neither draws. The others are
Textual's: `table.py` the rows, `panels.py` what is around them, `dialogs.py` what asks, `app.py`
the screen and its keys. `steering.py` is what changes the process.
"""
