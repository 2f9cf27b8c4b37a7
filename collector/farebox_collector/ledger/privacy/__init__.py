"""Personal data: export what is known of a person, and erase a person."""
