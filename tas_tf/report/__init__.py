"""What people look at: tables, figures, one page of HTML."""
