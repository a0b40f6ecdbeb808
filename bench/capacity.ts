export const capacityText = (_: string) => 0
