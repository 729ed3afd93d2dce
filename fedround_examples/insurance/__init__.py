"""Six real sites of a health insurance experiment: what does outpatient care of a year cost?"""
