package placement

// DeclinedFor is for tests.
const DeclinedFor = declinedFor
