export { TokenLabeling, type TokenLabelingOptions } from "./token-labeling.ts";
