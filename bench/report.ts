export const reportPage = (_: unknown) => ''
