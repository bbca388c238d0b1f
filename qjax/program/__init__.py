"""An integer network as data: its form, its operators, its files, other formats in and out."""
