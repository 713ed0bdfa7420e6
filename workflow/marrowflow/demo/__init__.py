"""Material for trying the workflow without a patient's image: painted smears and open weights."""
