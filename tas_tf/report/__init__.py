"""Reports for people: tables, figures, one page of HTML."""
