"""The page of ``objcg report``: one file that loads nothing."""
