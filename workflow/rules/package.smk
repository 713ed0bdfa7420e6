# What was fixed on development data, sealed, and packed for a second hospital.
